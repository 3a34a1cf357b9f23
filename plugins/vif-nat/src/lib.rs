//! Handler for vifs behind the host's NAT: does what `/etc/xen/scripts/vif-nat` does on `online`. Guest and link get an
//! address each. The guest's is its `ip`, or else derived from its domain id.
//!
//! | node or parameter read | meaning |
//! | --- | --- |
//! | `ip`, or else the parameter of that name | the guest's IPv4 address; if there is none, `10.<domid / 256>.<domid % 256>.<handle + 1>` |
//! | `handle` | the vif's number; if there is none, the device's |
//! | `vifname`, `mtu`, `mac` | as for `vif-bridge`; without `mtu` it stays as it is |
//!
//! The parameter `dhcp` has no effect: a hook writes the guest's DHCP entry (`examples/hooks/dnsmasq.hook`). The
//! setting `mac-filter` and the frontend's `mtu` are those of `vif-bridge`. The operator sets up the address
//! translation itself once for the host, as with the script.
//!
//! A tap gets only its name and its rules, as from the script: the address belongs to the vif.

mod addresses;

use addresses::Addresses;
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler, VifType,
    network::{LinkChanges, Route, Vif},
};
use xenplug_vif::VifSettings;

/// Handler for vifs behind NAT.
struct VifNat;

impl Handler for VifNat {
    fn describe() -> Description {
        Description::new("vifs behind NAT").kind("vif").script("vif-nat")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let addresses = Addresses::of(device)?;
        let settings = VifSettings::of(device)?;
        let vif = Vif::find()?;
        if device.vif_type == VifType::Emulated {
            settings.configure(&vif, LinkChanges::new(), None)?;
            settings.restrict(&vif)?;
            return Ok(settings.connection());
        }
        settings.configure(&vif, LinkChanges::new().up(), None)?;
        vif.add_address(&format!("{}/32", addresses.router))?;
        vif.add_route(&Route {
            to: addresses.guest.to_string(),
            source: Some(addresses.router.to_string()),
            metric: None,
        })
        .map_err(|error| error.of("ip"))?;
        vif.proxy_arp()?;
        settings.restrict(&vif)?;
        Ok(settings.connection())
    }
}

xenplug_sdk::export!(VifNat);
