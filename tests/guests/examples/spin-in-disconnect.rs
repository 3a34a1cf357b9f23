//! Connects, and never returns from `disconnect`.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("never comes back from disconnect").with_disconnect()
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Ok(Connection::new())
    }

    fn disconnect(_device: &Device) -> Result<(), Error> {
        loop {
            std::hint::spin_loop();
        }
    }
}

xenplug_sdk::export!(Guest);
