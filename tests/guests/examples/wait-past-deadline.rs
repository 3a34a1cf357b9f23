//! Waits in the host for a file that never comes, for longer than it may.

use xenplug_guests::description;
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    block::{Access, Source},
};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("waits in the host for a file that never comes")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let absent = format!("{}.absent", device.required("params")?);
        loop {
            // Its error is that the time is over; this guest does not take it.
            let _ = Source::open_when_there(&absent, Access::ReadOnly, 60_000);
        }
    }
}

xenplug_sdk::export!(Guest);
