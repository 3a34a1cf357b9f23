//! Publishes a node in the frontend that no handler may.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("publishes a node in the frontend that no handler may")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Ok(Connection::new().frontend("state", "4"))
    }
}

xenplug_sdk::export!(Guest);
