//! `vif-nat`: vifs behind NAT.

use anyhow::Result;
use serde_json::json;
use xenplug_tests::harness::Device;

use crate::{attach, check_only_own_address_passes, host, remove, vif_of};

#[test]
fn nat_vif_addresses_derive_from_its_domid() -> Result<()> {
    let mut host = host()?;
    for (domid, index, handle, guest, router) in [
        (3, 0, "0", "10.0.3.1", "10.0.3.128"),
        (3, 1, "1", "10.0.3.2", "10.0.3.129"),
        (700, 0, "0", "10.2.188.1", "10.2.188.128"),
    ] {
        let vif = Device::vif(domid, index);
        let nodes = vif_of("vif-nat", &[("handle", handle)]);
        attach(&mut host, "vif-nat", &vif, &nodes, json!({}))?.done()?;
        host.expect_connected(&vif)?;
        let network = host.namespace();
        assert_eq!(network.addresses(&vif.link())?, [format!("{router}/32")]);
        assert_eq!(network.routes(&vif.link())?, [format!("{guest} src {router}")]);
        assert_eq!(network.setting(&vif.link(), "proxy_arp")?, "1");
    }
    let vif = Device::vif(3, 0);
    host.call_of("vif-nat", &vif, "add", json!({}))?.answer()?.done()?;
    remove(&host, "vif-nat", &vif)?;
    let network = host.namespace();
    assert_eq!(network.addresses("vif3.0")?, [""; 0]);
    assert_eq!(network.routes("vif3.0")?, [""; 0]);
    assert_eq!(network.setting("vif3.0", "proxy_arp")?, "0");
    Ok(())
}

#[test]
fn nat_guest_sends_only_from_its_configured_address() -> Result<()> {
    let mut host = host()?;
    let baseline = host.baseline()?;
    let vif = Device::vif(3, 0);
    let nodes = vif_of("vif-nat", &[("ip", "10.7.0.5/16")]);
    attach(&mut host, "vif-nat", &vif, &nodes, json!({ "ip": "10.8.0.9" }))?.done()?;
    assert_eq!(host.namespace().addresses("vif3.0")?, ["10.7.0.132/32"]);
    assert_eq!(host.namespace().routes("vif3.0")?, ["10.7.0.5 src 10.7.0.132"]);
    check_only_own_address_passes(&host, &vif, "10.7.0.132", "10.7.0.5", "10.8.0.9")?;
    remove(&host, "vif-nat", &vif)?;
    host.toolstack().forget(&vif)?;
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn nat_tap_has_no_address_and_the_route_stays_on_the_vif() -> Result<()> {
    let mut host = host()?;
    let vif = Device::vif(3, 0);
    attach(&mut host, "vif-nat", &vif, &vif_of("vif-nat", &[]), json!({}))?.done()?;
    host.namespace().tap("vif3.0-emu")?;
    for action in ["add", "remove"] {
        let call = host.call_of("vif-nat", &vif, action, json!({ "emulated": true }))?;
        call.answer()?.done()?;
        let network = host.namespace();
        assert_eq!(network.addresses("vif3.0-emu")?, [""; 0], "{action}");
        assert_eq!(network.routes("vif3.0-emu")?, [""; 0], "{action}");
        assert_eq!(network.routes("vif3.0")?, ["10.0.3.1 src 10.0.3.128"], "{action}");
    }
    remove(&host, "vif-nat", &vif)
}

#[test]
fn nat_invalid_address_is_refused() -> Result<()> {
    let mut host = host()?;
    let vif = Device::vif(3, 0);
    for (node, value, word) in [
        ("ip", "10.0.0.200", "no address for the router"),
        ("ip", "10.0.0.1 10.0.0.2", "not one IPv4 address"),
        ("ip", "192.168.0.1", "not granted"),
        ("handle", "200", "no address for the router"),
        ("handle", "x", "handle"),
    ] {
        let nodes = vif_of("vif-nat", &[(node, value)]);
        attach(&mut host, "vif-nat", &vif, &nodes, json!({}))?.says("failed", &["vif-nat", word])?;
        assert_eq!(host.namespace().addresses("vif3.0")?, [""; 0], "{node} {value}");
        host.unplug(&vif)?.done()?;
    }
    Ok(())
}
