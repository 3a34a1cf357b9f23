//! Never returns from `connect`.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("never comes back from connect")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        loop {
            std::hint::spin_loop();
        }
    }
}

xenplug_sdk::export!(Guest);
