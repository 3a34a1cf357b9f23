//! Cards behind address translation: what `vif-nat` does.

use anyhow::{Result, ensure};
use serde_json::json;
use xenplug_tests::rig::{Device, Guest};

use crate::{card_of, machine, plug};

#[test]
fn a_card_behind_translation_has_addresses_made_of_its_domains_number() -> Result<()> {
    let mut machine = machine()?;
    for (domid, index, handle, guest, router) in [
        (3, 0, "0", "10.0.3.1", "10.0.3.128"),
        (3, 1, "1", "10.0.3.2", "10.0.3.129"),
        (700, 0, "0", "10.2.188.1", "10.2.188.128"),
    ] {
        let card = Device::card(domid, index);
        let nodes = card_of("vif-nat", &[("handle", handle)]);
        plug(&mut machine, "vif-nat", &card, &nodes, json!({}))?.done()?;
        machine.expect_connected(&card)?;
        let network = machine.namespace();
        assert_eq!(network.addresses(&card.link())?, [format!("{router}/32")]);
        assert_eq!(network.routes(&card.link())?, [format!("{guest} src {router}")]);
        assert_eq!(network.setting(&card.link(), "proxy_arp")?, "1");
    }
    let card = Device::card(3, 0);
    machine.call_of("vif-nat", &card, "add", json!({}))?.answer()?.done()?;
    machine
        .call_of("vif-nat", &card, "remove", json!({}))?
        .answer()?
        .done()?;
    let network = machine.namespace();
    assert_eq!(network.addresses("vif3.0")?, [""; 0]);
    assert_eq!(network.routes("vif3.0")?, [""; 0]);
    assert_eq!(network.setting("vif3.0", "proxy_arp")?, "0");
    Ok(())
}

#[test]
fn the_guests_address_is_its_ip_and_packets_of_others_do_not_pass() -> Result<()> {
    let mut machine = machine()?;
    let baseline = machine.baseline()?;
    let card = Device::card(3, 0);
    let nodes = card_of("vif-nat", &[("ip", "10.7.0.5/16")]);
    plug(&mut machine, "vif-nat", &card, &nodes, json!({ "ip": "10.8.0.9" }))?.done()?;
    assert_eq!(machine.namespace().addresses("vif3.0")?, ["10.7.0.132/32"]);
    assert_eq!(machine.namespace().routes("vif3.0")?, ["10.7.0.5 src 10.7.0.132"]);
    let guest = Guest::of(
        &machine,
        &card,
        &["10.7.0.5 peer 10.7.0.132/32", "10.8.0.9 peer 10.7.0.132/32"],
    )?;
    ensure!(guest.reaches("10.7.0.5", "10.7.0.132")?, "no packet arrives");
    ensure!(!guest.reaches("10.8.0.9", "10.7.0.132")?, "another's packet arrives");
    drop(guest);
    machine
        .call_of("vif-nat", &card, "remove", json!({}))?
        .answer()?
        .done()?;
    machine.toolstack().forget(&card)?;
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn an_address_that_cannot_be_is_refused() -> Result<()> {
    let mut machine = machine()?;
    let card = Device::card(3, 0);
    for (node, value, word) in [
        ("ip", "10.0.0.200", "no room for the router"),
        ("ip", "10.0.0.1 10.0.0.2", "not one IPv4 address"),
        ("ip", "192.168.0.1", "not granted"),
        ("handle", "200", "no room for the router"),
        ("handle", "x", "handle"),
    ] {
        let nodes = card_of("vif-nat", &[(node, value)]);
        plug(&mut machine, "vif-nat", &card, &nodes, json!({}))?.says("failed", &["vif-nat", word])?;
        assert_eq!(machine.namespace().addresses("vif3.0")?, [""; 0], "{node} {value}");
        machine.unplug(&card)?.done()?;
    }
    Ok(())
}
