//! Opens files that it has no grant for, and hides the errors.

use xenplug_guests::description;
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    block::{Access, Source},
};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("asks for what it was not granted, and hides that")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        for path in ["/etc/shadow", "/dev/mem", "/proc/self/environ"] {
            let _ = Source::open(path, Access::ReadWrite);
        }
        Ok(Connection::new())
    }
}

xenplug_sdk::export!(Guest);
