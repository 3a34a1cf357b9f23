//! Publishes a hundred thousand nodes.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("publishes a hundred thousand nodes")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        let connect = |connection: Connection, number: u32| connection.backend(&format!("node-{number}"), "1");
        Ok((0..100_000).fold(Connection::new(), connect))
    }
}

xenplug_sdk::export!(Guest);
