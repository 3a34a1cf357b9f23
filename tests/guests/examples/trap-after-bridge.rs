//! Traps after it has put its interface on a bridge.

use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    network::{Bridge, LinkChanges, Vif},
};

struct Guest;

impl Handler for Guest {
    fn describe() -> Description {
        Description::new("traps after it has put its interface on a bridge")
            .kind("vif")
            .script("vif-bridge")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let vif = Vif::find()?;
        let bridge = Bridge::find(device.optional("bridge")?)?;
        vif.configure(
            &LinkChanges::new().mac("fe:ff:ff:ff:ff:ff").mtu(1400).up(),
            Some(&bridge),
        )?;
        panic!("this guest was made to fail")
    }
}

xenplug_sdk::export!(Guest);
