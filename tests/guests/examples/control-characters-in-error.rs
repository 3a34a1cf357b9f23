//! Fails with a text that holds a newline, NUL, an escape sequence and a right-to-left override.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("fails with a text that holds a newline")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Err(Error::invalid(
            "params\nstate = 4",
            "\u{1b}[2J\u{1b}]0;owned\u{7} \0 \u{202e}txet",
        ))
    }
}

xenplug_sdk::export!(Guest);
