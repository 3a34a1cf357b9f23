//! Traps when it is called.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("traps when it is called")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        panic!("this guest was made to fail")
    }
}

xenplug_sdk::export!(Guest);
