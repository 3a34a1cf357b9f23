//! Never returns from `describe`.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description(spin())
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Ok(Connection::new())
    }
}

fn spin() -> &'static str {
    loop {
        std::hint::spin_loop();
    }
}

xenplug_sdk::export!(Guest);
