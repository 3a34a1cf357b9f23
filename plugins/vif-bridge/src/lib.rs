//! The handler for network cards on a bridge: what `/etc/xen/scripts/vif-bridge` does on `online`.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `bridge` | the bridge; if there is none, the first that is granted |
//! | `vifname` | a new name for the interface |
//! | `mtu` | the MTU in bytes; if there is none, the bridge's |
//! | `ip` | the addresses that the guest may send from, separated by spaces or commas: IPv4, IPv6, or prefixes of them |
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

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod card;
mod sources;

use card::{Card, former_name};
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler, config, firewall,
    network::{Bridge, LinkChanges, Role, Vif},
};

/// The largest hardware address that is no group's: a bridge takes the smallest of its ports', and so never this one
/// (tools/hotplug/Linux/xen-network-common.sh, `_setup_bridge_port`).
const PORT_MAC: &str = "fe:ff:ff:ff:ff:ff";

/// Network cards on a bridge.
struct VifBridge;

impl Handler for VifBridge {
    fn describe() -> Description {
        Description::new("network cards on a bridge")
            .kind("vif")
            .script("vif-bridge")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let card = Card::of(device)?;
        let allowed = sources::allowed(device, config::flag("mac-filter")?)?;
        let vif = Vif::find(Role::Paravirtual)?;
        let bridge = find_bridge(card.bridge.as_deref()).map_err(|error| error.of("bridge"))?;
        let mtu = match card.mtu {
            Some(mtu) => mtu,
            None => bridge.facts()?.mtu,
        };

        let mut changes = LinkChanges::new().flush_addresses().mac(PORT_MAC).mtu(mtu).up();
        changes.name = card.name;
        let named = changes.name.is_some();
        vif.configure(&changes, Some(&bridge)).map_err(|error| match error {
            // Nothing else of what is changed here can be in use.
            Error::Busy(cause) if named => Error::invalid("vifname", cause),
            error => error,
        })?;
        // Not too late: netback lets nothing through before the device is reported as connected.
        if let Some(allowed) = allowed {
            firewall::restrict(&vif, &allowed)?;
        }
        Ok(Connection::new().frontend("mtu", mtu.to_string()))
    }
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
