//! Publishes a node that belongs to the host.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("publishes a node that belongs to the host")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Ok(Connection::new().backend("hotplug-status", "connected"))
    }
}

xenplug_sdk::export!(Guest);
