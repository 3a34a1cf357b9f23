//! Connects, and traps in `disconnect`.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("traps in disconnect").with_disconnect()
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Ok(Connection::new())
    }

    fn disconnect(_device: &Device) -> Result<(), Error> {
        panic!("this guest was made to fail")
    }
}

xenplug_sdk::export!(Guest);
