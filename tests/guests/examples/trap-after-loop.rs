//! Traps after it has attached a loop device to the file that `params` names.

use xenplug_guests::description;
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    block::{Access, LoopOptions, Sharing, Source},
};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("traps after it has attached a loop device to what params names")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let source = Source::open(device.required("params")?, Access::ReadWrite)?;
        source.claim(Sharing::Alone)?;
        let attached = source.attach_loop(LoopOptions {
            read_only: false,
            direct_io: false,
        })?;
        panic!("this guest was made to fail with {}", attached.path())
    }
}

xenplug_sdk::export!(Guest);
