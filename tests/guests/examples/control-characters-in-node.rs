//! Publishes a value that holds a newline and NUL.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("publishes a value that holds a newline and NUL")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Ok(Connection::new().backend("physical-device", "7:0\n\0\u{1b}[2J"))
    }
}

xenplug_sdk::export!(Guest);
