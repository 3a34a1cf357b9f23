//! Emulated cards: the tap belongs to the card's directory, and comes and goes by calls of its own.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xenplug_tests::harness::{Answer, Device, TestHost, Vif};

use crate::{card_of, machine, plug};

/// Long enough for whatever is going to happen at once.
const MOMENT: Duration = Duration::from_millis(300);

/// Calls the daemon as for `add type_if=tap`, or `remove`.
fn tap(machine: &TestHost, card: &Device, action: &str) -> Result<Answer> {
    machine
        .call_of("vif-bridge", card, action, json!({ "emulated": true }))?
        .answer()
}

fn link(machine: &TestHost, name: &str) -> Result<Value> {
    machine
        .namespace()
        .link(name)?
        .with_context(|| format!("there is no {name}"))
}

#[test]
fn tap_joins_and_leaves_its_vifs_bridge_by_own_script_calls() -> Result<()> {
    let mut machine = machine()?;
    let baseline = machine.baseline()?;
    machine.namespace().ip("link set xenbr0 mtu 1400")?;
    let card = machine.plug_card(3, 0)?;
    machine.expect_connected(&card)?;
    let before = machine.baseline()?;
    machine.namespace().tap("vif3.0-emu")?;
    for _ in 0..2 {
        tap(&machine, &card, "add")?.done()?;
        let link = link(&machine, "vif3.0-emu")?;
        assert_eq!(
            (&link["master"], &link["mtu"], &link["address"]),
            (&json!("xenbr0"), &json!(1400), &json!("fe:ff:ff:ff:ff:ff"))
        );
        ensure!(link["flags"].to_string().contains("\"UP\""), "{link}");
    }
    let status = machine.daemon().context("no daemon")?.status()?;
    let devices = status["devices"].as_array().context("no devices")?;
    let emulated: Vec<_> = devices.iter().map(|one| (&one["emulated"], &one["state"])).collect();
    let connected = json!("connected");
    assert_eq!(emulated, [(&json!(false), &connected), (&json!(true), &connected)]);

    tap(&machine, &card, "remove")?.done()?;
    ensure!(
        link(&machine, "vif3.0-emu")?["master"].is_null(),
        "it is on the bridge still"
    );
    assert_eq!(machine.namespace().ports("xenbr0")?, ["vif3.0"]);
    tap(&machine, &card, "remove")?.done()?;
    machine.namespace().ip("link delete vif3.0-emu")?;
    before.assert_same(&machine)?;
    machine.namespace().ip("link set xenbr0 mtu 1500")?;
    machine.end_guest_of_dom0(3, &[card])?;
    baseline.assert_same(&machine)
}

#[test]
fn tap_is_named_after_its_vif_and_publishes_nothing() -> Result<()> {
    let mut machine = machine()?;
    let card = Device::card(3, 0);
    let nodes = Vif::on("xenbr0").with("vifname", "web").with("mtu", "1300");
    machine.plug(&card, &nodes)?.done()?;
    machine.expect_connected(&card)?;
    let store = |machine: &TestHost, node: &str| machine.connect()?.find(node).map_err(anyhow::Error::from);
    let mtu = format!("{}/mtu", card.frontend());
    // The script computes the frontend's path from the new name, and writes it to nobody.
    assert_eq!(store(&machine, &mtu)?.as_deref(), Some("1300"));
    machine.toolstack().store().write(&mtu, "1300 as before")?;
    let nodes = machine.baseline()?;
    machine.namespace().tap("vif3.0-emu")?;
    tap(&machine, &card, "add")?.done()?;
    assert_eq!(link(&machine, "web-emu")?["mtu"], 1300);
    assert_eq!(machine.namespace().link("vif3.0-emu")?, None);
    assert_eq!(store(&machine, &mtu)?.as_deref(), Some("1300 as before"));
    tap(&machine, &card, "remove")?.done()?;
    machine.namespace().ip("link delete vif3.0-emu")?;
    nodes.assert_same(&machine)
}

#[test]
fn failed_tap_reports_its_cause_and_its_vif_stays_connected() -> Result<()> {
    let mut machine = machine()?;
    let card = Device::card(3, 0);
    machine.plug(&card, &Vif::on("xenbr0").with("vifname", "web"))?.done()?;
    machine.expect_connected(&card)?;
    machine.namespace().tap("vif3.0-emu")?;
    machine.namespace().tap("web-emu")?;
    tap(&machine, &card, "add")?.says("failed", &["vif-bridge", "vifname", "web-emu"])?;
    let error = machine.node(&card, "hotplug-error")?.unwrap_or_default();
    ensure!(error.contains("web-emu"), "{error}");
    thread::sleep(MOMENT);
    assert_eq!(machine.node(&card, "hotplug-status")?.as_deref(), Some("connected"));
    assert_eq!(machine.namespace().ports("xenbr0")?, ["web"]);
    // And may be tried again.
    machine.namespace().ip("link delete web-emu")?;
    tap(&machine, &card, "add")?.done()?;
    tap(&machine, &card, "remove")?.done()?;
    machine.call(&card, "remove")?.answer()?.done()
}

#[test]
fn tap_may_come_before_its_vif_and_stay_after_it() -> Result<()> {
    let mut machine = machine()?;
    let card = machine.attach_card(3, 0)?;
    machine.expect_state(&card, "2")?;
    let waits = machine.call_of("vif-bridge", &card, "add", json!({ "emulated": true }))?;
    thread::sleep(MOMENT);
    machine.namespace().tap("vif3.0-emu")?;
    waits.answer()?.done()?;
    assert_eq!(machine.namespace().ports("xenbr0")?, ["vif3.0-emu"]);
    machine.call(&card, "add")?.answer()?.done()?;
    machine.call(&card, "remove")?.answer()?.done()?;
    assert_eq!(machine.namespace().ports("xenbr0")?, ["vif3.0-emu"]);
    tap(&machine, &card, "remove")?.done()?;
    assert_eq!(machine.namespace().ports("xenbr0")?, [""; 0]);
    Ok(())
}

#[test]
fn tap_outlives_the_daemon_but_not_its_vifs_directory() -> Result<()> {
    let mut machine = machine()?;
    let baseline = machine.baseline()?;
    let card = Device::card(3, 0);
    let nodes = Vif::on("xenbr0").with("ip", "10.0.0.2");
    machine.plug(&card, &nodes)?.done()?;
    machine.namespace().tap("vif3.0-emu")?;
    tap(&machine, &card, "add")?.done()?;
    let plugged = machine.baseline()?;
    for graceful in [true, false] {
        let daemon = machine.daemon_mut()?;
        if graceful {
            daemon.terminate()?;
        } else {
            daemon.kill()?;
        }
        daemon.restart()?;
        plugged.assert_same(&machine)?;
        let status = machine.daemon().context("no daemon")?.status()?;
        assert_eq!(status["devices"][1]["state"], "connected", "{status}");
    }
    tap(&machine, &card, "remove")?.done()?;
    assert_eq!(machine.namespace().ports("xenbr0")?, ["vif3.0"]);
    tap(&machine, &card, "add")?.done()?;
    // Nobody asks for its removal: `xl destroy`, and a toolstack that dies.
    machine.toolstack().detach(&card)?;
    machine.expect_state(&card, "6")?;
    machine.toolstack().forget(&card)?;
    machine.toolstack().bury(3)?;
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while !machine.namespace().ports("xenbr0")?.is_empty() {
        ensure!(
            std::time::Instant::now() < until,
            "it is held still\n{}",
            machine.daemon_log()
        );
        thread::sleep(Duration::from_millis(20));
    }
    machine.namespace().ip("link delete vif3.0-emu")?;
    baseline.assert_same(&machine)
}

#[test]
fn foreign_tap_is_left_to_its_owner() -> Result<()> {
    let mut machine = machine()?;
    let card = machine.attach_card(3, 0)?;
    // There is none: nothing is to be done.
    tap(&machine, &card, "remove")?.done()?;
    machine.namespace().tap("vif3.0-emu")?;
    machine.namespace().ip("link set vif3.0-emu master xenbr0 up")?;
    tap(&machine, &card, "remove")?.says("not-served", &["somebody else"])?;
    assert_eq!(machine.namespace().ports("xenbr0")?, ["vif3.0-emu"]);
    let disk = machine.plug_disk(3, 0)?;
    let answer = machine
        .call_of("block", &disk, "add", json!({ "emulated": true }))?
        .answer()?;
    answer.says("failed", &["is no card"])
}

#[test]
fn tap_routes_have_priority_over_vif_routes() -> Result<()> {
    let mut machine = machine()?;
    let card = Device::card(3, 0);
    let nodes = card_of("vif-route", &[("ip", "10.1.0.2")]);
    plug(&mut machine, "vif-route", &card, &nodes, json!({}))?.done()?;
    machine.namespace().tap("vif3.0-emu")?;
    let told = json!({ "emulated": true, "parameters": { "netdev": "eth1" } });
    let call = machine.call_of("vif-route", &card, "add", told)?;
    call.answer()?.done()?;
    let network = machine.namespace();
    assert_eq!(network.routes("vif3.0")?, ["10.1.0.2 src 192.0.2.1 metric 2"]);
    let tap_routes = network.routes("vif3.0-emu")?;
    ensure!(
        tap_routes.len() == 1 && tap_routes[0].starts_with("10.1.0.2 src 198.51.100.1 metric 1"),
        "{tap_routes:?}"
    );
    assert_eq!(network.setting("vif3.0-emu", "proxy_arp")?, "1");
    tap(&machine, &card, "remove")?.done()?;
    assert_eq!(machine.namespace().routes("vif3.0-emu")?, [""; 0]);
    assert_eq!(
        machine.namespace().routes("vif3.0")?,
        ["10.1.0.2 src 192.0.2.1 metric 2"]
    );
    Ok(())
}

#[test]
fn nat_tap_is_only_renamed() -> Result<()> {
    let mut machine = machine()?;
    let card = Device::card(3, 0);
    let nodes = card_of("vif-nat", &[("vifname", "web")]);
    plug(&mut machine, "vif-nat", &card, &nodes, json!({}))?.done()?;
    machine.namespace().tap("vif3.0-emu")?;
    let call = machine.call_of("vif-nat", &card, "add", json!({ "emulated": true }))?;
    call.answer()?.done()?;
    assert_eq!(machine.namespace().addresses("web-emu")?, [""; 0]);
    assert_eq!(machine.namespace().routes("web-emu")?, [""; 0]);
    Ok(())
}

/// The original takes every tap for one of a card of domain 0's (tools/hotplug/Linux/vif-common.sh).
#[test]
fn tap_of_another_domains_vif_is_refused() -> Result<()> {
    const CARD: &str = "/local/domain/5/backend/vif/3/0";
    let mut machine = TestHost::new()?;
    machine.namespace().ip("link add xenbr1 type bridge")?;
    machine.namespace().tap("vif3.0-emu")?;
    machine.toolstack().build(3)?;
    let store = machine.toolstack().store();
    store.write("domid", "5")?;
    for (name, value) in [
        ("frontend", "/local/domain/3/device/vif/0"),
        ("frontend-id", "3"),
        ("online", "1"),
        ("state", "4"),
        ("script", "/etc/xen/scripts/vif-bridge"),
        ("mac", "00:16:3e:00:00:01"),
        ("bridge", "xenbr1"),
        ("handle", "0"),
        ("type", "vif_ioemu"),
        ("hotplug-status", "connected"),
    ] {
        store.write(&format!("{CARD}/{name}"), value)?;
    }

    let script = machine.rig().script("vif-bridge");
    let mut original = machine.namespace().command(&script);
    machine.xenstored().equip(&mut original);
    original
        .args(["add", "type_if=tap"])
        .envs([
            ("XENBUS_TYPE", "vif"),
            ("XENBUS_PATH", CARD),
            ("XENBUS_BASE_PATH", "backend"),
        ])
        .envs([("vif", "vif3.0"), ("INTERFACE", "vif3.0-emu"), ("netdev", "")])
        .env("script", &script);
    let ended = original.output()?;
    ensure!(
        machine.namespace().ports("xenbr1")?.is_empty(),
        "the original found the card: {ended:?}"
    );

    let config = machine.config()?.replacing("\"driver-domain\"", "\"dom0\"");
    machine.start_daemon(config)?;
    let call = |machine: &TestHost, action| {
        machine
            .call_of(
                "vif-bridge",
                &Device::card(3, 0),
                action,
                json!({ "emulated": true, "backend": CARD }),
            )?
            .answer()
    };
    call(&machine, "add")?.done()?;
    assert_eq!(machine.namespace().ports("xenbr1")?, ["vif3.0-emu"]);
    call(&machine, "remove")?.done()?;
    ensure!(machine.namespace().ports("xenbr1")?.is_empty(), "it is a port still");
    Ok(())
}
