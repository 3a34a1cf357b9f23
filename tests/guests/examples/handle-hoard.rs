//! Opens the file that `params` names again and again, and closes none.

use xenplug_guests::description;
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    block::{Access, Source},
};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("opens what params names again and again")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let path = device.required("params")?;
        let mut hoard = Vec::new();
        loop {
            hoard.push(Source::open(path, Access::ReadOnly)?);
        }
    }
}

xenplug_sdk::export!(Guest);
