//! Calls the host without end, cheaply.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler, config};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("calls the host without end")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        loop {
            std::hint::black_box(config::value("flood"));
        }
    }
}

xenplug_sdk::export!(Guest);
