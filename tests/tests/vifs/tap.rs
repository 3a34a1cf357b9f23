//! Taps of emulated vifs, which belong to the vif's directory and have script calls of their own.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xenplug_tests::harness::{Answer, Device, TestHost, Vif};

use crate::{attach, host, vif_of};

/// Time after which an immediate effect has happened.
const MOMENT: Duration = Duration::from_millis(300);

/// Calls the daemon as for `add type_if=tap`, or `remove`.
fn tap(host: &TestHost, vif: &Device, action: &str) -> Result<Answer> {
    host.call_of("vif-bridge", vif, action, json!({ "emulated": true }))?
        .answer()
}

fn link(host: &TestHost, name: &str) -> Result<Value> {
    host.namespace()
        .link(name)?
        .with_context(|| format!("there is no {name}"))
}

#[test]
fn tap_joins_and_leaves_its_vifs_bridge_by_own_script_calls() -> Result<()> {
    let mut host = host()?;
    let baseline = host.baseline()?;
    host.namespace().ip("link set xenbr0 mtu 1400")?;
    let vif = host.plug_vif(3, 0)?;
    host.expect_connected(&vif)?;
    let before = host.baseline()?;
    host.namespace().tap("vif3.0-emu")?;
    for _ in 0..2 {
        tap(&host, &vif, "add")?.done()?;
        let link = link(&host, "vif3.0-emu")?;
        assert_eq!(
            (&link["master"], &link["mtu"], &link["address"]),
            (&json!("xenbr0"), &json!(1400), &json!("fe:ff:ff:ff:ff:ff"))
        );
        ensure!(link["flags"].to_string().contains("\"UP\""), "{link}");
    }
    let status = host.daemon().context("no daemon")?.status()?;
    let devices = status["devices"].as_array().context("no devices")?;
    let emulated: Vec<_> = devices.iter().map(|one| (&one["emulated"], &one["state"])).collect();
    let connected = json!("connected");
    assert_eq!(emulated, [(&json!(false), &connected), (&json!(true), &connected)]);

    tap(&host, &vif, "remove")?.done()?;
    ensure!(
        link(&host, "vif3.0-emu")?["master"].is_null(),
        "it is on the bridge still"
    );
    assert_eq!(host.namespace().ports("xenbr0")?, ["vif3.0"]);
    tap(&host, &vif, "remove")?.done()?;
    host.namespace().ip("link delete vif3.0-emu")?;
    before.assert_same(&host)?;
    host.namespace().ip("link set xenbr0 mtu 1500")?;
    host.end_guest_of_dom0(3, &[vif])?;
    baseline.assert_same(&host)
}

#[test]
fn tap_is_named_after_its_vif_and_publishes_nothing() -> Result<()> {
    let mut host = host()?;
    let vif = Device::vif(3, 0);
    let nodes = Vif::on("xenbr0").with("vifname", "web").with("mtu", "1300");
    host.plug(&vif, &nodes)?.done()?;
    host.expect_connected(&vif)?;
    let store = |host: &TestHost, node: &str| host.connect()?.find(node).map_err(anyhow::Error::from);
    let mtu = format!("{}/mtu", vif.frontend());
    // The script computes the frontend's path from the new name, so that the MTU goes to no frontend.
    assert_eq!(store(&host, &mtu)?.as_deref(), Some("1300"));
    host.toolstack().store().write(&mtu, "1300 as before")?;
    let nodes = host.baseline()?;
    host.namespace().tap("vif3.0-emu")?;
    tap(&host, &vif, "add")?.done()?;
    assert_eq!(link(&host, "web-emu")?["mtu"], 1300);
    assert_eq!(host.namespace().link("vif3.0-emu")?, None);
    assert_eq!(store(&host, &mtu)?.as_deref(), Some("1300 as before"));
    tap(&host, &vif, "remove")?.done()?;
    host.namespace().ip("link delete vif3.0-emu")?;
    nodes.assert_same(&host)
}

#[test]
fn failed_tap_reports_its_cause_and_its_vif_stays_connected() -> Result<()> {
    let mut host = host()?;
    let vif = Device::vif(3, 0);
    host.plug(&vif, &Vif::on("xenbr0").with("vifname", "web"))?.done()?;
    host.expect_connected(&vif)?;
    host.namespace().tap("vif3.0-emu")?;
    host.namespace().tap("web-emu")?;
    tap(&host, &vif, "add")?.says("failed", &["vif-bridge", "vifname", "web-emu"])?;
    let error = host.node(&vif, "hotplug-error")?.unwrap_or_default();
    ensure!(error.contains("web-emu"), "{error}");
    thread::sleep(MOMENT);
    assert_eq!(host.node(&vif, "hotplug-status")?.as_deref(), Some("connected"));
    assert_eq!(host.namespace().ports("xenbr0")?, ["web"]);
    // The call can be repeated.
    host.namespace().ip("link delete web-emu")?;
    tap(&host, &vif, "add")?.done()?;
    tap(&host, &vif, "remove")?.done()?;
    host.call(&vif, "remove")?.answer()?.done()
}

#[test]
fn tap_may_come_before_its_vif_and_stay_after_it() -> Result<()> {
    let mut host = host()?;
    let vif = host.attach_vif(3, 0)?;
    host.expect_state(&vif, "2")?;
    let waits = host.call_of("vif-bridge", &vif, "add", json!({ "emulated": true }))?;
    thread::sleep(MOMENT);
    host.namespace().tap("vif3.0-emu")?;
    waits.answer()?.done()?;
    assert_eq!(host.namespace().ports("xenbr0")?, ["vif3.0-emu"]);
    host.call(&vif, "add")?.answer()?.done()?;
    host.call(&vif, "remove")?.answer()?.done()?;
    assert_eq!(host.namespace().ports("xenbr0")?, ["vif3.0-emu"]);
    tap(&host, &vif, "remove")?.done()?;
    assert_eq!(host.namespace().ports("xenbr0")?, [""; 0]);
    Ok(())
}

#[test]
fn tap_outlives_the_daemon_but_not_its_vifs_directory() -> Result<()> {
    let mut host = host()?;
    let baseline = host.baseline()?;
    let vif = Device::vif(3, 0);
    let nodes = Vif::on("xenbr0").with("ip", "10.0.0.2");
    host.plug(&vif, &nodes)?.done()?;
    host.namespace().tap("vif3.0-emu")?;
    tap(&host, &vif, "add")?.done()?;
    let attached = host.baseline()?;
    for graceful in [true, false] {
        let daemon = host.daemon_mut()?;
        if graceful {
            daemon.terminate()?;
        } else {
            daemon.kill()?;
        }
        daemon.restart()?;
        attached.assert_same(&host)?;
        let status = host.daemon().context("no daemon")?.status()?;
        assert_eq!(status["devices"][1]["state"], "connected", "{status}");
    }
    tap(&host, &vif, "remove")?.done()?;
    assert_eq!(host.namespace().ports("xenbr0")?, ["vif3.0"]);
    tap(&host, &vif, "add")?.done()?;
    // No script call removes the tap: `xl destroy`, and a toolstack that dies.
    host.toolstack().detach(&vif)?;
    host.expect_state(&vif, "6")?;
    host.toolstack().forget(&vif)?;
    host.toolstack().bury(3)?;
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while !host.namespace().ports("xenbr0")?.is_empty() {
        ensure!(
            std::time::Instant::now() < until,
            "it is held still\n{}",
            host.daemon_log()
        );
        thread::sleep(Duration::from_millis(20));
    }
    host.namespace().ip("link delete vif3.0-emu")?;
    baseline.assert_same(&host)
}

#[test]
fn foreign_tap_is_left_to_its_owner() -> Result<()> {
    let mut host = host()?;
    let vif = host.attach_vif(3, 0)?;
    // The tap does not exist, so there is nothing to do.
    tap(&host, &vif, "remove")?.done()?;
    host.namespace().tap("vif3.0-emu")?;
    host.namespace().ip("link set vif3.0-emu master xenbr0 up")?;
    tap(&host, &vif, "remove")?.says("not-served", &["somebody else"])?;
    assert_eq!(host.namespace().ports("xenbr0")?, ["vif3.0-emu"]);
    let disk = host.plug_disk(3, 0)?;
    let answer = host
        .call_of("block", &disk, "add", json!({ "emulated": true }))?
        .answer()?;
    answer.says("failed", &["is not a vif"])
}

#[test]
fn tap_routes_have_priority_over_vif_routes() -> Result<()> {
    let mut host = host()?;
    let vif = Device::vif(3, 0);
    let nodes = vif_of("vif-route", &[("ip", "10.1.0.2")]);
    attach(&mut host, "vif-route", &vif, &nodes, json!({}))?.done()?;
    host.namespace().tap("vif3.0-emu")?;
    let arguments = json!({ "emulated": true, "parameters": { "netdev": "eth1" } });
    let call = host.call_of("vif-route", &vif, "add", arguments)?;
    call.answer()?.done()?;
    let network = host.namespace();
    assert_eq!(network.routes("vif3.0")?, ["10.1.0.2 src 192.0.2.1 metric 2"]);
    let tap_routes = network.routes("vif3.0-emu")?;
    ensure!(
        tap_routes.len() == 1 && tap_routes[0].starts_with("10.1.0.2 src 198.51.100.1 metric 1"),
        "{tap_routes:?}"
    );
    assert_eq!(network.setting("vif3.0-emu", "proxy_arp")?, "1");
    tap(&host, &vif, "remove")?.done()?;
    assert_eq!(host.namespace().routes("vif3.0-emu")?, [""; 0]);
    assert_eq!(host.namespace().routes("vif3.0")?, ["10.1.0.2 src 192.0.2.1 metric 2"]);
    Ok(())
}

#[test]
fn nat_tap_is_only_renamed() -> Result<()> {
    let mut host = host()?;
    let vif = Device::vif(3, 0);
    let nodes = vif_of("vif-nat", &[("vifname", "web")]);
    attach(&mut host, "vif-nat", &vif, &nodes, json!({}))?.done()?;
    host.namespace().tap("vif3.0-emu")?;
    let call = host.call_of("vif-nat", &vif, "add", json!({ "emulated": true }))?;
    call.answer()?.done()?;
    assert_eq!(host.namespace().addresses("web-emu")?, [""; 0]);
    assert_eq!(host.namespace().routes("web-emu")?, [""; 0]);
    Ok(())
}

/// Test of a fault that the original has: it takes every tap for a vif of domain 0 (tools/hotplug/Linux/vif-common.sh).
#[test]
fn tap_of_another_domains_vif_is_refused() -> Result<()> {
    const VIF: &str = "/local/domain/5/backend/vif/3/0";
    let mut host = TestHost::new()?;
    host.namespace().ip("link add xenbr1 type bridge")?;
    host.namespace().tap("vif3.0-emu")?;
    host.toolstack().build(3)?;
    let store = host.toolstack().store();
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
        store.write(&format!("{VIF}/{name}"), value)?;
    }

    let script = host.debian().script("vif-bridge");
    let mut original = host.namespace().command(&script);
    host.xenstored().equip(&mut original);
    original
        .args(["add", "type_if=tap"])
        .envs([
            ("XENBUS_TYPE", "vif"),
            ("XENBUS_PATH", VIF),
            ("XENBUS_BASE_PATH", "backend"),
        ])
        .envs([("vif", "vif3.0"), ("INTERFACE", "vif3.0-emu"), ("netdev", "")])
        .env("script", &script);
    let ended = original.output()?;
    ensure!(
        host.namespace().ports("xenbr1")?.is_empty(),
        "the original found the vif: {ended:?}"
    );

    let config = host.config()?.replacing("\"driver-domain\"", "\"dom0\"");
    host.start_daemon(config)?;
    let call = |host: &TestHost, action| {
        host.call_of(
            "vif-bridge",
            &Device::vif(3, 0),
            action,
            json!({ "emulated": true, "backend": VIF }),
        )?
        .answer()
    };
    call(&host, "add")?.done()?;
    assert_eq!(host.namespace().ports("xenbr1")?, ["vif3.0-emu"]);
    call(&host, "remove")?.done()?;
    ensure!(host.namespace().ports("xenbr1")?.is_empty(), "it is a port still");
    Ok(())
}
