//! Attaches loop devices without end to the file that `params` names.

use xenplug_guests::description;
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    block::{Access, LoopOptions, Source},
};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("attaches loop devices to what params names without end")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let source = Source::open(device.required("params")?, Access::ReadWrite)?;
        loop {
            source.attach_loop(LoopOptions {
                read_only: false,
                direct_io: false,
            })?;
        }
    }
}

xenplug_sdk::export!(Guest);
