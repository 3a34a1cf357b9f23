//! Handler for vifs on a bridge. It does what `/etc/xen/scripts/vif-bridge` does on `online`, and on `add` for the
//! tap of an emulated vif.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `bridge`, or else the parameter of that name | the bridge; if there is none, the first that is granted |
//! | `vifname` | a new name for the interface; that of a tap has `-emu` after it |
//! | `mtu` | the MTU in bytes; if there is none, the bridge's |
//! | `ip`, or else the parameter of that name | the addresses that the guest may send from, separated by spaces or commas: IPv4, IPv6, or prefixes of them |
//! | `mac` | the guest's hardware address |
//!
//! | node published | meaning |
//! | --- | --- |
//! | the frontend's `mtu` | the MTU that was set |
//!
//! | setting in `[plugin.NAME.config]` | meaning |
//! | --- | --- |
//! | `mac-filter` | `true` lets the guest send with the hardware address of its `mac` alone |
//!
//! With `ip` all else that the guest sends is dropped: IPv6 too if `ip` names only IPv4, which the script leaves open.
//! It may ask for an address by DHCP. Without `ip` it may send from any address.
//!
//! The component imports the firewall, and has to be granted it, also where no guest has an `ip`: a restriction that
//! was asked for must never be left out for want of a grant.

use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    network::{Bridge, LinkChanges, Vif},
};
use xenplug_vif::{PORT_MAC, VifSettings};

/// Vifs on a bridge.
struct VifBridge;

impl Handler for VifBridge {
    fn describe() -> Description {
        Description::new("vifs on a bridge").kind("vif").script("vif-bridge")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let mut settings = VifSettings::of(device)?;
        let vif = Vif::find()?;
        let bridge = find_bridge(device.setting("bridge")?).map_err(|error| error.of("bridge"))?;
        settings.mtu = match settings.mtu {
            Some(mtu) => Some(mtu),
            None => Some(bridge.facts()?.mtu),
        };
        let changes = LinkChanges::new().flush_addresses().mac(PORT_MAC).up();
        settings.configure(&vif, changes, Some(&bridge))?;
        settings.restrict(&vif)?;
        Ok(settings.connection())
    }
}

/// Former name for `xenbrN` where the bridge carries the name of its physical interface: `ethN`. Configurations written
/// before that still say `xenbrN` (tools/hotplug/Linux/vif-bridge).
fn former_name(bridge: &str) -> Option<String> {
    bridge.strip_prefix("xenbr").map(|number| format!("eth{number}"))
}

/// The bridge of that name, or the one that a name from old configurations stands for.
fn find_bridge(name: Option<&str>) -> Result<Bridge, Error> {
    let missing = match Bridge::find(name) {
        Err(error @ Error::NotFound(_)) => error,
        found => return found,
    };
    let former = name.and_then(former_name).ok_or_else(|| missing.clone())?;
    Bridge::find(Some(&former)).map_err(|_| missing)
}

xenplug_sdk::export!(VifBridge);

#[cfg(test)]
mod tests {
    use super::former_name;

    #[test]
    fn former_bridge_name_stands_for_its_interface() {
        assert_eq!(former_name("xenbr0").as_deref(), Some("eth0"));
        assert_eq!(former_name("xenbr12").as_deref(), Some("eth12"));
        assert_eq!(former_name("br0"), None);
    }
}
