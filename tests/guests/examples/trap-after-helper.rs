//! Traps after it has started the helper that `params` names.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler, process::HelperProcess};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("traps after it has started the helper that params names")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let helper = HelperProcess::start(device.required("params")?, &[])?;
        panic!("this guest was made to fail beside process {}", helper.pid())
    }
}

xenplug_sdk::export!(Guest);
