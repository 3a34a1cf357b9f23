//! Handler for vifs on a bridge: does what `/etc/xen/scripts/vif-bridge` does on `online`, and on `add` for the tap of
//! an emulated vif.
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
//! With `ip` all other packets of the guest are dropped: also IPv6 if `ip` names only IPv4, which the script allows.
//! The guest may send DHCP requests. Without `ip` it may send from any address.
//!
//! The component imports the firewall, so the operator has to grant it even if no guest has an `ip`. A requested
//! restriction is thus never skipped for want of a grant.

use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    network::{Bridge, LinkChanges, Vif},
};
use xenplug_vif::{PORT_MAC, VifSettings};

/// Handler for vifs on a bridge.
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

/// Returns `ethN` for `xenbrN`. Older configurations use `xenbrN` for a bridge that has the name of its physical
/// interface by now (tools/hotplug/Linux/vif-bridge).
fn former_name(bridge: &str) -> Option<String> {
    bridge.strip_prefix("xenbr").map(|number| format!("eth{number}"))
}

/// Finds the bridge with this name, or else the bridge that an older configuration means.
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
