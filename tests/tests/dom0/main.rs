//! In dom0: devices are plugged when their script is run and not before, on the real xenstored, loop devices and
//! bridges, with the toolstack played as libxl does it.

mod crash;
mod original;
mod waiting;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Call, Device, Disk, TestHost, Vif, attached_below};

/// Long enough for whatever is going to happen at once.
const MOMENT: Duration = Duration::from_millis(300);

fn write(machine: &mut TestHost, device: &Device, node: &str, value: &str) -> Result<()> {
    let path = format!("{}/{node}", device.backend());
    Ok(machine.toolstack().store().write(&path, value)?)
}

/// Waits until no device is plugged: the kernel may let go a moment after the daemon.
fn expect_nothing_plugged(machine: &TestHost) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let (loops, ports) = (
            attached_below(machine.directory())?,
            machine.namespace().ports("xenbr0")?,
        );
        if loops.is_empty() && ports.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{loops:?} {ports:?}\n{}", machine.daemon_log());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn script_calls_attach_and_detach_a_disk_and_a_vif() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let image = machine.image("a.img", 4)?;
    let (disk, card) = (Device::disk(3, 0), Device::card(3, 0));
    for (device, nodes) in [(disk, Disk::on(&image)), (card, Vif::on("xenbr0"))] {
        machine.plug(&device, &nodes)?.done()?;
        // Before the script ends, not some time after.
        assert_eq!(machine.node(&device, "hotplug-status")?.as_deref(), Some("connected"));
        machine.expect_connected(&device)?;
    }
    let status = machine.daemon().context("no daemon")?.status()?;
    assert_eq!(status["mode"], "dom0");
    assert_eq!(status["devices"][0]["state"], "connected", "{status}");
    for device in [&disk, &card] {
        machine.toolstack().detach(device)?;
        machine.expect_state(device, "6")?;
        machine.call(device, "remove")?.answer()?.done()?;
        assert_eq!(machine.node(device, "hotplug-status")?.as_deref(), Some("disconnected"));
        assert_eq!(
            machine.node(device, "state")?.as_deref(),
            Some("6"),
            "it is libxl's to remove"
        );
        machine.toolstack().forget(device)?;
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn dom0_device_without_script_call_is_not_attached() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let devices = [machine.attach_disk(3, 0)?, machine.attach_card(3, 0)?];
    for device in &devices {
        machine.expect_state(device, "2")?;
    }
    thread::sleep(MOMENT);
    for device in &devices {
        let status = machine.node(device, "hotplug-status")?.unwrap_or_default();
        assert_eq!((status.as_str(), machine.node(device, "hotplug-error")?), ("", None));
    }
    ensure!(attached_below(machine.directory())?.is_empty());
    ensure!(machine.namespace().ports("xenbr0")?.is_empty());
    machine.end_guest_of_dom0(3, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn repeated_add_succeeds_and_changes_nothing() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let devices = [machine.plug_disk(3, 0)?, machine.plug_card(3, 0)?];
    for device in &devices {
        machine.expect_connected(device)?;
    }
    let before = machine.baseline()?;
    for device in devices.iter().cycle().take(6) {
        machine.call(device, "add")?.answer()?.done()?;
    }
    before.assert_same(&machine)?;
    machine.end_guest_of_dom0(3, &devices)
}

#[test]
fn concurrent_script_calls_are_both_answered() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let disk = machine.attach_disk(3, 0)?;
    let image = machine.images().join("3-0.img");
    let adds = [machine.call(&disk, "add")?, machine.call(&disk, "add")?];
    for add in adds {
        add.answer()?.done()?;
    }
    assert_eq!(attached_below(machine.directory())?.len(), 1);
    let removes = [machine.call(&disk, "remove")?, machine.call(&disk, "remove")?];
    for remove in removes {
        remove.answer()?.done()?;
    }
    machine.toolstack().forget(&disk)?;

    // The second try of two meets what the first met.
    fs::remove_file(image)?;
    machine.attach(&disk, &Disk::on(&machine.images().join("3-0.img")))?;
    machine.expect_state(&disk, "2")?;
    let adds = [machine.call(&disk, "add")?, machine.call(&disk, "add")?];
    for add in adds {
        add.answer()?.says("failed", &["phy", "3-0.img"])?;
    }
    machine.end_guest_of_dom0(3, &[disk])?;
    baseline.assert_same(&machine)
}

#[test]
fn failed_add_reports_its_cause_and_can_be_retried() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let disk = Device::disk(3, 0);
    let image = machine.images().join("absent.img");
    let answer = machine.plug(&disk, &Disk::on(&image))?;
    answer.says("failed", &["phy", "absent.img"])?;
    assert_eq!(machine.node(&disk, "hotplug-status")?.as_deref(), Some("error"));
    assert_eq!(machine.node(&disk, "hotplug-error")?, answer.error);
    // Nobody asks: nothing is tried.
    machine.image("absent.img", 4)?;
    write(&mut machine, &disk, "hotplug-status", "")?;
    thread::sleep(MOMENT);
    ensure!(attached_below(machine.directory())?.is_empty());
    machine.call(&disk, "add")?.answer()?.done()?;
    machine.expect_connected(&disk)?;
    // A card, too, and what libxl does after a failure.
    let card = Device::card(3, 0);
    let answer = machine.plug(&card, &Vif::on("xenbr7"))?;
    answer.says("failed", &["vif-bridge", "xenbr7"])?;
    machine.end_guest_of_dom0(3, &[disk, card])?;
    baseline.assert_same(&machine)
}

#[test]
fn invalid_script_call_is_answered_at_once() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let disk = machine.attach_disk(3, 0)?;
    let socket = machine.control_socket()?;
    let begun = Instant::now();
    for (script, backend, outcome, word) in [
        ("block", "backend/vbd/3/51713", "failed", "no such backend"),
        (
            "block",
            "/local/domain/0/backend/vbd/4/51712",
            "failed",
            "no such backend",
        ),
        ("block", "/local/domain/7/backend/vbd/3/51712", "failed", "domain 0"),
        ("block", "backend/vbd/3/51712/state", "failed", "domain 0"),
        ("block", "backend/vbd/3", "failed", "domain 0"),
        ("block", "backend/vbd/x/0", "failed", "not a domain id"),
        ("block", "", "failed", "not a backend's path"),
        ("block", "../../etc/passwd", "failed", "not a backend's path"),
        ("block-tap", "backend/vbd/3/51712", "not-served", "block-tap"),
        ("block", "backend/vif/3/0", "not-served", "vif"),
        ("block", "backend/pci/3/0", "not-served", "pci"),
        ("", "backend/vbd/3/51712", "not-served", "no plugin"),
    ] {
        let body = format!(r#"{{"script": "{script}", "action": "add", "backend": "{backend}"}}"#);
        let answer = Call::with(&body, &socket)?.answer()?;
        answer.says(outcome, &[word]).context(body)?;
    }
    for body in ["", "{}", r#"{"script": "block", "action": "online", "backend": "x"}"#] {
        assert_eq!(Call::with(body, &socket)?.reply()?.0, 400, "{body}");
    }
    // Nothing is known of them: there is nothing to take down.
    machine.call(&Device::disk(9, 9), "remove")?.answer()?.done()?;
    machine.call(&disk, "remove")?.answer()?.done()?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(machine.node(&disk, "hotplug-status")?, None, "it was not ours");
    machine.end_guest_of_dom0(3, &[disk])
}

#[test]
fn remove_releases_in_any_state_and_with_any_store_content() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let states: [&[&str]; 5] = [
        &[],
        &["params", "bridge"],
        &["state"],
        &["online", "params"],
        &["mode", "script"],
    ];
    for gone in states {
        let devices = [machine.plug_disk(3, 0)?, machine.plug_card(3, 0)?];
        for device in &devices {
            machine.expect_connected(device)?;
            for node in gone {
                machine
                    .toolstack()
                    .store()
                    .remove(&format!("{}/{node}", device.backend()))?;
            }
            machine.call(device, "remove")?.answer()?.done()?;
            if !gone.contains(&"state") {
                assert_eq!(machine.node(device, "hotplug-status")?.as_deref(), Some("disconnected"));
            }
        }
        for device in &devices {
            machine.toolstack().forget(device)?;
        }
        expect_nothing_plugged(&machine).with_context(|| format!("after {gone:?}"))?;
    }
    // The whole directory is gone.
    let devices = [machine.plug_disk(3, 0)?, machine.plug_card(3, 0)?];
    for device in &devices {
        machine.toolstack().forget(device)?;
        machine.call(device, "remove")?.answer()?.done()?;
        assert_eq!(
            machine.connect()?.find(&device.backend())?,
            None,
            "it is not made again"
        );
    }
    // The handler has not ended, perhaps.
    for delay in 0..10 {
        let disk = machine.attach_disk(3, 0)?;
        machine.expect_state(&disk, "2")?;
        let add = machine.call(&disk, "add")?;
        thread::sleep(Duration::from_micros(200 * delay));
        machine.call(&disk, "remove")?.answer()?.done()?;
        let outcome = add.answer()?.outcome;
        ensure!(matches!(&*outcome, "done" | "failed"), "{outcome}");
        machine.toolstack().forget(&disk)?;
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn closed_device_is_released_before_its_remove_call() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let devices = [machine.plug_disk(3, 0)?, machine.plug_card(3, 0)?];
    for device in &devices {
        machine.expect_connected(device)?;
        machine.toolstack().detach(device)?;
        machine.expect_status(device, "disconnected")?;
    }
    ensure!(attached_below(machine.directory())?.is_empty());
    thread::sleep(MOMENT);
    for device in &devices {
        assert_eq!(
            machine.node(device, "state")?.as_deref(),
            Some("6"),
            "nobody removes it"
        );
        machine.call(device, "remove")?.answer()?.done()?;
        machine.toolstack().forget(device)?;
    }
    machine.toolstack().bury(3)
}

#[test]
fn rebooting_guest_keeps_its_devices() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let devices = [machine.plug_disk(3, 0)?, machine.plug_card(3, 0)?];
    for device in &devices {
        machine.expect_connected(device)?;
        write(&mut machine, device, "state", "5")?;
        machine.expect_state(device, "6")?;
    }
    thread::sleep(MOMENT);
    assert_eq!(attached_below(machine.directory())?.len(), 1);
    for device in &devices {
        assert_eq!(machine.node(device, "hotplug-status")?.as_deref(), Some("connected"));
    }
    machine.end_guest_of_dom0(3, &devices)
}

#[test]
fn dom0_device_attached_repeatedly_connects_each_time() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    for _ in 0..15 {
        let devices = [machine.plug_disk(3, 0)?, machine.plug_card(3, 0)?];
        for device in &devices {
            machine.unplug(device)?.done()?;
        }
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn reused_domid_is_another_device() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let first = machine.plug_disk(3, 0)?;
    machine.expect_connected(&first)?;
    // The guest ends and its script never runs; the next one has the same number.
    machine.toolstack().forget(&first)?;
    machine.toolstack().bury(3)?;
    let image = machine.image("second.img", 4)?;
    machine.plug(&first, &Disk::on(&image))?.done()?;
    machine.expect_connected(&first)?;
    let loops = attached_below(machine.directory())?;
    ensure!(
        loops.len() == 1 && loops[0].backing.ends_with("second.img"),
        "{loops:?}"
    );
    machine.end_guest_of_dom0(3, &[first])?;
    baseline.assert_same(&machine)
}

#[test]
fn recreated_directory_never_gets_its_predecessors_resources() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let image = machine.image("second.img", 4)?;
    for delay in 0..10 {
        let disk = machine.attach_disk(3, 0)?;
        machine.expect_state(&disk, "2")?;
        let first = machine.call(&disk, "add")?;
        thread::sleep(Duration::from_micros(300 * delay));
        machine.attach(&disk, &Disk::on(&image))?;
        drop(first);
        machine.call(&disk, "add")?.answer()?.done()?;
        let node = machine.node(&disk, "node")?.context("no node")?;
        let loops = attached_below(machine.directory())?;
        let mine = loops.iter().find(|one| one.device.display().to_string() == node);
        // The played kernel may still hold the first one.
        ensure!(
            mine.is_some_and(|one| one.backing.ends_with("second.img")),
            "{node} of {loops:?} after {delay} times 300 us"
        );
        machine.unplug(&disk)?.done()?;
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn dom0_fifty_devices_attach_and_detach_at_once() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let mut devices = Vec::new();
    for index in 0..25 {
        devices.push(machine.attach_disk(3, index)?);
        devices.push(machine.attach_card(3, index)?);
    }
    for action in ["add", "remove"] {
        let calls: Vec<Call> = devices
            .iter()
            .map(|device| machine.call(device, action))
            .collect::<Result<_>>()?;
        for call in calls {
            call.answer()?.done()?;
        }
        let plugged = if action == "add" { 25 } else { 0 };
        assert_eq!(machine.namespace().ports("xenbr0")?.len(), plugged);
    }
    for device in &devices {
        machine.toolstack().forget(device)?;
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn driver_domain_answers_no_script_call() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_connected(&disk)?;
    for action in ["add", "remove"] {
        machine
            .call(&disk, action)?
            .answer()?
            .says("failed", &["driver-domain"])?;
    }
    assert_eq!(attached_below(machine.directory())?.len(), 1);
    machine.end_guest(3, &[disk])
}
