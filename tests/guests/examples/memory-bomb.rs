//! Allocates and writes memory without end.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("allocates and writes memory without end")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        let mut hoard: Vec<Vec<u8>> = Vec::new();
        loop {
            hoard.push(std::hint::black_box(vec![0xa5; 1 << 20]));
        }
    }
}

xenplug_sdk::export!(Guest);
