//! Imports helper processes without a grant.

use xenplug_guests::description;
use xenplug_sdk::{Connection, Description, Device, Error, Handler, process};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("imports helper processes")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        process::run("sh", &["-c".to_owned(), "id".to_owned()])?;
        Ok(Connection::new())
    }
}

xenplug_sdk::export!(Guest);
