//! `vif-route`: routed vifs.

use anyhow::{Result, ensure};
use serde_json::json;
use xenplug_tests::harness::Device;

use crate::{attach, check_only_own_address_passes, host, remove, vif_of};

#[test]
fn routed_vif_has_host_address_and_routes_while_attached() -> Result<()> {
    let mut host = host()?;
    let baseline = host.baseline()?;
    let vif = Device::vif(3, 0);
    let nodes = vif_of("vif-route", &[("ip", "10.1.0.2 10.2.0.0/16, 2001:db8::2")]);
    attach(&mut host, "vif-route", &vif, &nodes, json!({}))?.done()?;
    host.expect_connected(&vif)?;
    let network = host.namespace();
    assert_eq!(network.addresses("vif3.0")?, ["192.0.2.1/32"]);
    assert_eq!(
        network.routes("vif3.0")?,
        [
            "10.1.0.2 src 192.0.2.1 metric 2",
            "10.2.0.0/16 src 192.0.2.1 metric 2",
            "2001:db8::2 metric 2"
        ]
    );
    assert_eq!(network.setting("vif3.0", "proxy_arp")?, "1");
    let up = network
        .link("vif3.0")?
        .is_some_and(|link| link["flags"].to_string().contains("\"UP\""));
    ensure!(up, "it is down");

    check_only_own_address_passes(&host, &vif, "192.0.2.1", "10.1.0.2", "10.9.9.9")?;
    remove(&host, "vif-route", &vif)?;
    host.toolstack().forget(&vif)?;
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn link_changes_are_undone_though_the_link_stays() -> Result<()> {
    let mut host = host()?;
    let vif = Device::vif(3, 0);
    let nodes = vif_of("vif-route", &[("ip", "10.1.0.2"), ("vifname", "web"), ("mtu", "1400")]);
    attach(&mut host, "vif-route", &vif, &nodes, json!({}))?.done()?;
    assert_eq!(host.namespace().addresses("web")?, ["192.0.2.1/32"]);
    assert_eq!(host.namespace().setting("web", "proxy_arp")?, "1");
    let mtu = host.connect()?.find(&format!("{}/mtu", vif.frontend()))?;
    assert_eq!(mtu.as_deref(), Some("1400"));
    // A second call changes nothing.
    let more = json!({ "parameters": { "netdev": "eth1" } });
    host.call_of("vif-route", &vif, "add", more)?.answer()?.done()?;
    assert_eq!(host.namespace().addresses("web")?, ["192.0.2.1/32"]);

    remove(&host, "vif-route", &vif)?;
    let network = host.namespace();
    assert_eq!(network.addresses("vif3.0")?, [""; 0]);
    assert_eq!(network.routes("vif3.0")?, [""; 0]);
    assert_eq!(network.setting("vif3.0", "proxy_arp")?, "0");
    let link = network.link("vif3.0")?.unwrap_or_default();
    ensure!(
        link["mtu"] == 1500 && !link["flags"].to_string().contains("\"UP\""),
        "{link}"
    );
    Ok(())
}

#[test]
fn vif_setting_precedence_is_store_then_arguments_then_default() -> Result<()> {
    let mut host = host()?;
    let vif = Device::vif(3, 0);
    // Nodes, script arguments, and the resulting address and route.
    for (nodes, arguments, address, route) in [
        (&[][..], json!({}), "192.0.2.1/32", None),
        (&[], json!({ "netdev": "eth1" }), "198.51.100.1/32", None),
        (&[("gatewaydev", "eth1")], json!({}), "198.51.100.1/32", None),
        (
            &[("gatewaydev", "eth1")],
            json!({ "netdev": "eth0" }),
            "192.0.2.1/32",
            None,
        ),
        // `ip` falls back to the parameter; `netdev` is no node.
        (&[("netdev", "eth1")], json!({}), "192.0.2.1/32", None),
        (&[], json!({ "ip": "10.5.0.1" }), "192.0.2.1/32", Some("10.5.0.1")),
        (
            &[("ip", "10.6.0.1")],
            json!({ "ip": "10.5.0.1" }),
            "192.0.2.1/32",
            Some("10.6.0.1"),
        ),
    ] {
        let nodes = vif_of("vif-route", nodes);
        attach(&mut host, "vif-route", &vif, &nodes, arguments.clone())?.done()?;
        assert_eq!(host.namespace().addresses("vif3.0")?, [address], "{arguments}");
        let expected: Vec<String> = route
            .map(|to| format!("{to} src 192.0.2.1 metric 2"))
            .into_iter()
            .collect();
        assert_eq!(host.namespace().routes("vif3.0")?, expected, "{arguments}");
        host.unplug(&vif)?.done()?;
    }
    Ok(())
}

#[test]
fn unroutable_vif_fails_with_a_cause_and_leaves_nothing() -> Result<()> {
    let mut host = host()?;
    host.namespace().ip("link add eth9 type veth peer name world-eth9")?;
    let baseline = host.baseline()?;
    let vif = Device::vif(3, 0);
    for (nodes, arguments, words) in [
        (
            &[][..],
            json!({ "netdev": "eth7" }),
            ["netdev", "no network interface eth7"],
        ),
        (&[], json!({ "netdev": "eth9" }), ["netdev", "eth9 has no IPv4 address"]),
        (&[], json!({ "netdev": "lo" }), ["netdev", "lo is not granted"]),
        (&[], json!({ "netdev": "../eth0" }), ["netdev", "cannot be the name"]),
        (
            &[("ip", "172.16.0.1")],
            json!({}),
            ["ip", "172.16.0.1/32 is not granted"],
        ),
        (
            &[("ip", "10.0.0.1 0.0.0.0/0")],
            json!({}),
            ["ip", "0.0.0.0/0 is not granted"],
        ),
        (&[("ip", "10.0.0.1;reboot")], json!({}), ["ip", "neither an address"]),
    ] {
        let nodes = vif_of("vif-route", nodes);
        let answer = attach(&mut host, "vif-route", &vif, &nodes, arguments)?;
        answer.says("failed", &["vif-route"])?;
        answer.says("failed", &words)?;
        assert_eq!(host.namespace().addresses("vif3.0")?, [""; 0]);
        assert_eq!(host.namespace().setting("vif3.0", "proxy_arp")?, "0");
        host.unplug(&vif)?.done()?;
    }
    // A foreign route.
    host.namespace().ip("route add 10.3.0.0/16 dev eth1 metric 2")?;
    let nodes = vif_of("vif-route", &[("ip", "10.3.0.0/16")]);
    attach(&mut host, "vif-route", &vif, &nodes, json!({}))?.says("failed", &["another route to 10.3.0.0/16"])?;
    host.unplug(&vif)?.done()?;
    host.namespace().ip("route del 10.3.0.0/16 dev eth1 metric 2")?;
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn invalid_script_arguments_are_refused_at_the_socket() -> Result<()> {
    let host = host()?;
    let vif = Device::vif(3, 0);
    for arguments in [
        json!({ "PATH": "/bin" }),
        json!({ "netdev": "" }),
        json!({ "netdev": "a\nb" }),
        json!({ "ip": "x".repeat(1025) }),
    ] {
        let call = host.call_of("vif-route", &vif, "add", json!({ "parameters": arguments }))?;
        call.answer()?.says("failed", &["is no parameter"])?;
    }
    Ok(())
}
