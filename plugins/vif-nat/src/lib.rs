//! The handler for network cards behind this machine's address translation: what `/etc/xen/scripts/vif-nat` does on
//! `online`. Guest and link get an address each; the guest's is its `ip`, or else one made of its domain's number.
//!
//! | node or parameter read | meaning |
//! | --- | --- |
//! | `ip`, or else the parameter of that name | the guest's IPv4 address; if there is none, `10.<domid / 256>.<domid % 256>.<handle + 1>` |
//! | `handle` | the card's number; if there is none, the device's |
//! | the parameter `dhcp` | anything but `no`: the guest gets a DHCP entry |
//! | `vifname`, `mtu`, `mac` | as for `vif-bridge`; without `mtu` it stays as it is |
//!
//! The setting `dhcp = true` gives guests an entry of which the script is told nothing; the script itself takes that for
//! granted where there is an `/etc/dhcpd.conf`. The setting `mac-filter` and the frontend's `mtu` are those of `vif-bridge`, too. The translation itself is set up once
//! for the machine, by whoever sets up its network.
//!
//! A tap gets its name and its rules and nothing more, as from the script: there is one address, and it is the card's.

mod addresses;

use addresses::Addresses;
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler, VifType, config,
    network::{Lease, LinkChanges, Route, Vif},
};
use xenplug_vif::Card;

/// Network cards behind address translation.
struct VifNat;

impl Handler for VifNat {
    fn describe() -> Description {
        Description::new("network cards behind address translation")
            .kind("vif")
            .script("vif-nat")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let addresses = Addresses::of(device)?;
        let card = Card::of(device)?;
        let vif = Vif::find()?;
        if device.vif_type == VifType::Emulated {
            card.configure(&vif, LinkChanges::new(), None)?;
            card.restrict(&vif)?;
            return Ok(card.connection());
        }
        card.configure(&vif, LinkChanges::new().up(), None)?;
        vif.add_address(&format!("{}/32", addresses.router))?;
        vif.add_route(&Route {
            to: addresses.guest.to_string(),
            source: Some(addresses.router.to_string()),
            metric: None,
        })
        .map_err(|error| error.of("ip"))?;
        vif.proxy_arp()?;
        if wants_dhcp(device.parameter("dhcp"), config::flag("dhcp")?) {
            vif.offer_lease(&Lease {
                host: Addresses::host(device)?,
                mac: device.required("mac")?.to_owned(),
                address: addresses.guest.to_string(),
                router: addresses.router.to_string(),
            })
            .map_err(|error| error.of("dhcp"))?;
        }
        card.restrict(&vif)?;
        Ok(card.connection())
    }
}

/// Whether the guest is to have a DHCP entry: as the script was told, or else as the operator has set it.
fn wants_dhcp(told: Option<&str>, set: bool) -> bool {
    told.map_or(set, |told| told != "no")
}

xenplug_sdk::export!(VifNat);

#[cfg(test)]
mod tests {
    use super::wants_dhcp;

    #[test]
    fn what_the_script_is_told_of_dhcp_wins() {
        for (told, set, expected) in [
            (None, false, false),
            (None, true, true),
            (Some("no"), true, false),
            (Some("yes"), false, true),
            (Some("anything"), false, true),
        ] {
            assert_eq!(wants_dhcp(told, set), expected, "{told:?} {set}");
        }
    }
}
