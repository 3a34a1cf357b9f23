//! Writes escape sequences and forged lines to the log, and connects.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler, log};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("writes escape sequences and forged lines to the log")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        log::warn("\u{1b}[2J\u{1b}[31mall is lost\nERROR xenplugd: the store is gone\r\0");
        Ok(Connection::new())
    }
}

xenplug_sdk::export!(Guest);
