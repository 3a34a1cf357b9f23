//! Publishes a node whose name leads out of its directory.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("publishes a node whose name leads out of its directory")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Ok(Connection::new().backend("../../../../1/backend/vbd/0/51712/params", "/dev/sda"))
    }
}

xenplug_sdk::export!(Guest);
