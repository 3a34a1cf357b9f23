//! Never returns after it has attached a loop device to the file that `params` names.

use xenplug_guests::description;
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    block::{Access, LoopOptions, Source},
};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("never comes back after it has attached a loop device to what params names")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let source = Source::open(device.required("params")?, Access::ReadWrite)?;
        let _attached = source.attach_loop(LoopOptions {
            read_only: false,
            direct_io: false,
        })?;
        loop {
            std::hint::spin_loop();
        }
    }
}

xenplug_sdk::export!(Guest);
