//! Writes a hundred thousand long lines to the log, and connects.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler, log};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("writes a hundred thousand long lines to the log")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        let line = "flood ".repeat(200);
        for number in 0..100_000 {
            log::info(&format!("{number} {line}"));
        }
        Ok(Connection::new())
    }
}

xenplug_sdk::export!(Guest);
