//! Publishes a value of 4 MiB.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("publishes a value of 4 MiB")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Ok(Connection::new().backend("physical-device", "7".repeat(4 << 20)))
    }
}

xenplug_sdk::export!(Guest);
