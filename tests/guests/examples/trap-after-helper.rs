//! Traps after it has started the helper that `params` names.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler, process::Kept};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("traps after it has started the helper that params names")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let kept = Kept::start(device.required("params")?, &[])?;
        panic!("this guest was made to fail beside process {}", kept.pid())
    }
}

xenplug_sdk::export!(Guest);
