//! Fails with a text of 4 MiB.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("fails with a text of 4 MiB")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Err(Error::Other("it hurts ".repeat(500_000)))
    }
}

xenplug_sdk::export!(Guest);
