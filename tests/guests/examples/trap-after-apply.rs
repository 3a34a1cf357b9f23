//! Traps after it has turned on the helper that `params` names. The daemon then turns the helper off.

use xenplug_guests::description;
use xenplug_sdk::{Command, Connection, Description, Device, Error, Handler, Undo};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        description("traps after it has turned on the helper that params names")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let params = device.required("params")?;
        let (helper, careful) = match params.strip_suffix('!') {
            Some(helper) => (helper, true),
            None => (params, false),
        };
        let on = Command::of(helper).arg("on");
        let mut undo = Undo::by(Command::of(helper).arg("off")).settled_by(3);
        if careful {
            undo = undo.after_failure();
        }
        on.expect(on.apply(undo))?;
        panic!("this guest was made to fail with {helper} turned on")
    }
}

xenplug_sdk::export!(Guest);
