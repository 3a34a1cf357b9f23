//! Handler for routed vifs: does what `/etc/xen/scripts/vif-route` does on `online`, and on `add` for the tap of an
//! emulated vif. The vif's link gets the address of the host's own interface, and answers ARP requests for the network
//! behind the host. Routes lead packets for the guest to the link.
//!
//! | node or parameter read | meaning |
//! | --- | --- |
//! | the parameter `netdev`, or else the node `gatewaydev`, or else `eth0` | the interface whose address the vif's link gets |
//! | `ip`, or else the parameter of that name | addresses or prefixes that are routed to the guest, and that it may send from, separated by spaces or commas |
//! | `vifname`, `mtu`, `mac` | as for `vif-bridge`; without `mtu` it stays as it is |
//!
//! The setting `mac-filter` and the frontend's `mtu` are those of `vif-bridge`, too.
//!
//! The routes of an emulated vif's tap have the metric 1, those of the vif 2, so that the tap's are preferred as long
//! as it exists. Routes for IPv6 have no source, because the interface's address is an IPv4 one.

use std::net::IpAddr;

use xenplug_sdk::{
    Connection, Description, Device, Error, Handler, VifType,
    network::{self, LinkChanges, Route, Vif},
};
use xenplug_vif::{VifSettings, sources};

/// Default interface whose address the link gets (tools/hotplug/Linux/vif-common.sh, `dom0_ip`).
const NETDEV: &str = "eth0";

/// Handler for routed vifs.
struct VifRoute;

impl Handler for VifRoute {
    fn describe() -> Description {
        Description::new("routed vifs").kind("vif").script("vif-route")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let settings = VifSettings::of(device)?;
        let vif = Vif::find()?;
        let own = network::address_of(netdev(device)?).map_err(|error| error.of("netdev"))?;
        let routes = routes(device, &own)?;
        settings.configure(&vif, LinkChanges::new().up(), None)?;
        vif.add_address(&format!("{own}/32"))?;
        vif.proxy_arp()?;
        for route in &routes {
            vif.add_route(route).map_err(|error| error.of("ip"))?;
        }
        settings.restrict(&vif)?;
        Ok(settings.connection())
    }
}

/// Returns the interface whose address the link gets. libxl passes the node's value to a script as `netdev`
/// (libxl_linux.c, `get_hotplug_env`); in a driver domain there is no script call, so the node itself is read.
fn netdev(device: &Device) -> Result<&str, Error> {
    match device.parameter("netdev") {
        Some(netdev) => Ok(netdev),
        None => Ok(device.optional("gatewaydev")?.unwrap_or(NETDEV)),
    }
}

/// Returns the routes to the guest.
fn routes(device: &Device, own: &str) -> Result<Vec<Route>, Error> {
    let metric = match device.vif_type {
        VifType::Emulated => 1,
        VifType::Paravirtual => 2,
    };
    let list = device.setting("ip")?.unwrap_or_default();
    let route = |(entry, address): (&str, IpAddr)| Route {
        to: entry.to_owned(),
        source: address.is_ipv4().then(|| own.to_owned()),
        metric: Some(metric),
    };
    Ok(sources::addresses(list)?.into_iter().map(route).collect())
}

xenplug_sdk::export!(VifRoute);

#[cfg(test)]
mod tests {
    use super::*;

    fn device(nodes: &[(&str, &str)], parameters: &[(&str, &str)]) -> Device {
        Device::sample("vif", nodes).called_with(VifType::Paravirtual, parameters)
    }

    #[test]
    fn script_argument_netdev_wins_over_the_node() {
        for (nodes, parameters, expected) in [
            (&[][..], &[][..], "eth0"),
            (&[("gatewaydev", "eth1")], &[], "eth1"),
            (&[("gatewaydev", "eth1")], &[("netdev", "eth2")], "eth2"),
            // The script never reads that node.
            (&[("netdev", "eth3")], &[], "eth0"),
        ] {
            assert_eq!(
                netdev(&device(nodes, parameters)),
                Ok(expected),
                "{nodes:?} {parameters:?}"
            );
        }
    }

    #[test]
    fn each_address_has_a_route_and_the_taps_comes_first() {
        let vif = device(&[("ip", "10.0.0.2, 10.1.0.0/16 2001:db8::2")], &[("ip", "10.9.9.9")]);
        let route = |to: &str, source: Option<&str>, metric| Route {
            to: to.into(),
            source: source.map(Into::into),
            metric: Some(metric),
        };
        let own = Some("192.0.2.1");
        assert_eq!(
            routes(&vif, "192.0.2.1"),
            Ok(vec![
                route("10.0.0.2", own, 2),
                route("10.1.0.0/16", own, 2),
                route("2001:db8::2", None, 2)
            ])
        );
        let tap = Device::sample("vif", &[]).called_with(VifType::Emulated, &[("ip", "10.0.0.2")]);
        assert_eq!(routes(&tap, "192.0.2.1"), Ok(vec![route("10.0.0.2", own, 1)]));
        assert_eq!(routes(&device(&[], &[]), "192.0.2.1"), Ok(vec![]));
        assert!(matches!(
            routes(&device(&[("ip", "nowhere")], &[]), "192.0.2.1"),
            Err(Error::InvalidParams(bad)) if bad.key == "ip"
        ));
    }
}
