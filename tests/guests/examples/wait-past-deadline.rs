//! Waits in a host call for a file that never appears, past the deadline.

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
            // The host call fails when the time is over; this guest ignores the error and calls again.
            let _ = Source::open_when_there(&absent, Access::ReadOnly, 60_000);
        }
    }
}

xenplug_sdk::export!(Guest);
