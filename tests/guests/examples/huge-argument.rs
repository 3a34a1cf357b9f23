//! Passes a string of 4 MiB to the host, again and again.

use xenplug_guests::description;
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    block::{Access, Source},
};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("gives the host a string of 4 MiB")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        let path = format!("/{}", "a".repeat(4 << 20));
        loop {
            if let Err(Error::Other(_)) = Source::open(&path, Access::ReadOnly) {
                return Ok(Connection::new());
            }
        }
    }
}

xenplug_sdk::export!(Guest);
