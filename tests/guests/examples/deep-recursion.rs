//! Calls itself until the stack is full.
#![allow(unconditional_recursion, reason = "the guest overflows its stack")]

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("calls itself until the stack is full")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Ok(Connection::new().backend("depth", descend(1).to_string()))
    }
}

/// Recurses without a tail call: each frame still has an addition to do.
fn descend(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 32]);
    if depth == u64::MAX {
        0
    } else {
        descend(depth + 1).wrapping_add(frame[0])
    }
}

xenplug_sdk::export!(Guest);
