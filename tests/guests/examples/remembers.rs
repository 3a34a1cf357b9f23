//! Publishes how often this instance was called: 1, as each call has an instance of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

static CALLS: AtomicU32 = AtomicU32::new(0);

impl Handler for Guest {
    fn describe() -> Description {
        description("publishes how often this instance was called")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Connection::new().backend("calls", calls.to_string()))
    }
}

xenplug_sdk::export!(Guest);
