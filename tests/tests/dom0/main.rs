//! dom0 mode: the daemon attaches devices when their script runs and not before, on the real xenstored, loop devices
//! and bridges. The test plays the toolstack as libxl.

mod crash;
mod original;
mod waiting;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Call, Device, Disk, TestHost, Vif, attached_below};

/// Time after which an immediate effect has happened.
const MOMENT: Duration = Duration::from_millis(300);

fn write(host: &mut TestHost, device: &Device, node: &str, value: &str) -> Result<()> {
    let path = format!("{}/{node}", device.backend());
    Ok(host.toolstack().store().write(&path, value)?)
}

/// Waits until no device is attached. The kernel may release one shortly after the daemon does.
fn expect_nothing_attached(host: &TestHost) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let (loops, ports) = (attached_below(host.directory())?, host.namespace().ports("xenbr0")?);
        if loops.is_empty() && ports.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{loops:?} {ports:?}\n{}", host.daemon_log());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn script_calls_attach_and_detach_a_disk_and_a_vif() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let image = host.image("a.img", 4)?;
    let (disk, vif) = (Device::disk(3, 0), Device::vif(3, 0));
    for (device, nodes) in [(disk, Disk::on(&image)), (vif, Vif::on("xenbr0"))] {
        host.plug(&device, &nodes)?.done()?;
        // The status is published before the script ends.
        assert_eq!(host.node(&device, "hotplug-status")?.as_deref(), Some("connected"));
        host.expect_connected(&device)?;
    }
    let status = host.daemon().context("no daemon")?.status()?;
    assert_eq!(status["mode"], "dom0");
    assert_eq!(status["devices"][0]["state"], "connected", "{status}");
    for device in [&disk, &vif] {
        host.toolstack().detach(device)?;
        host.expect_state(device, "6")?;
        host.call(device, "remove")?.answer()?.done()?;
        assert_eq!(host.node(device, "hotplug-status")?.as_deref(), Some("disconnected"));
        assert_eq!(
            host.node(device, "state")?.as_deref(),
            Some("6"),
            "it is libxl's to remove"
        );
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn dom0_device_without_script_call_is_not_attached() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let devices = [host.attach_disk(3, 0)?, host.attach_vif(3, 0)?];
    for device in &devices {
        host.expect_state(device, "2")?;
    }
    thread::sleep(MOMENT);
    for device in &devices {
        let status = host.node(device, "hotplug-status")?.unwrap_or_default();
        assert_eq!((status.as_str(), host.node(device, "hotplug-error")?), ("", None));
    }
    ensure!(attached_below(host.directory())?.is_empty());
    ensure!(host.namespace().ports("xenbr0")?.is_empty());
    host.end_guest_of_dom0(3, &devices)?;
    baseline.assert_same(&host)
}

#[test]
fn repeated_add_succeeds_and_changes_nothing() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let devices = [host.plug_disk(3, 0)?, host.plug_vif(3, 0)?];
    for device in &devices {
        host.expect_connected(device)?;
    }
    let before = host.baseline()?;
    for device in devices.iter().cycle().take(6) {
        host.call(device, "add")?.answer()?.done()?;
    }
    before.assert_same(&host)?;
    host.end_guest_of_dom0(3, &devices)
}

#[test]
fn concurrent_script_calls_are_both_answered() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let disk = host.attach_disk(3, 0)?;
    let image = host.images().join("3-0.img");
    let adds = [host.call(&disk, "add")?, host.call(&disk, "add")?];
    for add in adds {
        add.answer()?.done()?;
    }
    assert_eq!(attached_below(host.directory())?.len(), 1);
    let removes = [host.call(&disk, "remove")?, host.call(&disk, "remove")?];
    for remove in removes {
        remove.answer()?.done()?;
    }
    host.toolstack().forget(&disk)?;

    // The second attempt fails for the same reason.
    fs::remove_file(image)?;
    host.attach(&disk, &Disk::on(&host.images().join("3-0.img")))?;
    host.expect_state(&disk, "2")?;
    let adds = [host.call(&disk, "add")?, host.call(&disk, "add")?];
    for add in adds {
        add.answer()?.says("failed", &["phy", "3-0.img"])?;
    }
    host.end_guest_of_dom0(3, &[disk])?;
    baseline.assert_same(&host)
}

#[test]
fn failed_add_reports_its_cause_and_can_be_retried() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let disk = Device::disk(3, 0);
    let image = host.images().join("absent.img");
    let answer = host.plug(&disk, &Disk::on(&image))?;
    answer.says("failed", &["phy", "absent.img"])?;
    assert_eq!(host.node(&disk, "hotplug-status")?.as_deref(), Some("error"));
    assert_eq!(host.node(&disk, "hotplug-error")?, answer.error);
    // Without a script call the daemon tries nothing.
    host.image("absent.img", 4)?;
    write(&mut host, &disk, "hotplug-status", "")?;
    thread::sleep(MOMENT);
    ensure!(attached_below(host.directory())?.is_empty());
    host.call(&disk, "add")?.answer()?.done()?;
    host.expect_connected(&disk)?;
    // The same for a vif, with the calls that libxl makes after a failure.
    let vif = Device::vif(3, 0);
    let answer = host.plug(&vif, &Vif::on("xenbr7"))?;
    answer.says("failed", &["vif-bridge", "xenbr7"])?;
    host.end_guest_of_dom0(3, &[disk, vif])?;
    baseline.assert_same(&host)
}

#[test]
fn invalid_script_call_is_answered_at_once() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let disk = host.attach_disk(3, 0)?;
    let socket = host.control_socket()?;
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
    // The daemon does not know these devices, so there is nothing to release.
    host.call(&Device::disk(9, 9), "remove")?.answer()?.done()?;
    host.call(&disk, "remove")?.answer()?.done()?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(host.node(&disk, "hotplug-status")?, None, "it was not ours");
    host.end_guest_of_dom0(3, &[disk])
}

#[test]
fn remove_releases_in_any_state_and_with_any_store_content() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let states: [&[&str]; 5] = [
        &[],
        &["params", "bridge"],
        &["state"],
        &["online", "params"],
        &["mode", "script"],
    ];
    for gone in states {
        let devices = [host.plug_disk(3, 0)?, host.plug_vif(3, 0)?];
        for device in &devices {
            host.expect_connected(device)?;
            for node in gone {
                host.toolstack()
                    .store()
                    .remove(&format!("{}/{node}", device.backend()))?;
            }
            host.call(device, "remove")?.answer()?.done()?;
            if !gone.contains(&"state") {
                assert_eq!(host.node(device, "hotplug-status")?.as_deref(), Some("disconnected"));
            }
        }
        for device in &devices {
            host.toolstack().forget(device)?;
        }
        expect_nothing_attached(&host).with_context(|| format!("after {gone:?}"))?;
    }
    // The whole directory is gone.
    let devices = [host.plug_disk(3, 0)?, host.plug_vif(3, 0)?];
    for device in &devices {
        host.toolstack().forget(device)?;
        host.call(device, "remove")?.answer()?.done()?;
        assert_eq!(host.connect()?.find(&device.backend())?, None, "it is not made again");
    }
    // The handler may still run.
    for delay in 0..10 {
        let disk = host.attach_disk(3, 0)?;
        host.expect_state(&disk, "2")?;
        let add = host.call(&disk, "add")?;
        thread::sleep(Duration::from_micros(200 * delay));
        host.call(&disk, "remove")?.answer()?.done()?;
        let outcome = add.answer()?.outcome;
        ensure!(matches!(&*outcome, "done" | "failed"), "{outcome}");
        host.toolstack().forget(&disk)?;
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn closed_device_is_released_before_its_remove_call() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let devices = [host.plug_disk(3, 0)?, host.plug_vif(3, 0)?];
    for device in &devices {
        host.expect_connected(device)?;
        host.toolstack().detach(device)?;
        host.expect_status(device, "disconnected")?;
    }
    ensure!(attached_below(host.directory())?.is_empty());
    thread::sleep(MOMENT);
    for device in &devices {
        assert_eq!(
            host.node(device, "state")?.as_deref(),
            Some("6"),
            "no toolstack removes it"
        );
        host.call(device, "remove")?.answer()?.done()?;
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)
}

#[test]
fn rebooting_guest_keeps_its_devices() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let devices = [host.plug_disk(3, 0)?, host.plug_vif(3, 0)?];
    for device in &devices {
        host.expect_connected(device)?;
        write(&mut host, device, "state", "5")?;
        host.expect_state(device, "6")?;
    }
    thread::sleep(MOMENT);
    assert_eq!(attached_below(host.directory())?.len(), 1);
    for device in &devices {
        assert_eq!(host.node(device, "hotplug-status")?.as_deref(), Some("connected"));
    }
    host.end_guest_of_dom0(3, &devices)
}

#[test]
fn dom0_device_attached_repeatedly_connects_each_time() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    for _ in 0..15 {
        let devices = [host.plug_disk(3, 0)?, host.plug_vif(3, 0)?];
        for device in &devices {
            host.unplug(device)?.done()?;
        }
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn reused_domid_is_another_device() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let first = host.plug_disk(3, 0)?;
    host.expect_connected(&first)?;
    // The guest ends and its script never runs. The next guest has the same domain id.
    host.toolstack().forget(&first)?;
    host.toolstack().bury(3)?;
    let image = host.image("second.img", 4)?;
    host.plug(&first, &Disk::on(&image))?.done()?;
    host.expect_connected(&first)?;
    let loops = attached_below(host.directory())?;
    ensure!(
        loops.len() == 1 && loops[0].backing.ends_with("second.img"),
        "{loops:?}"
    );
    host.end_guest_of_dom0(3, &[first])?;
    baseline.assert_same(&host)
}

#[test]
fn recreated_directory_never_gets_its_predecessors_resources() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let image = host.image("second.img", 4)?;
    for delay in 0..10 {
        let disk = host.attach_disk(3, 0)?;
        host.expect_state(&disk, "2")?;
        let first = host.call(&disk, "add")?;
        thread::sleep(Duration::from_micros(300 * delay));
        host.attach(&disk, &Disk::on(&image))?;
        drop(first);
        host.call(&disk, "add")?.answer()?.done()?;
        let node = host.node(&disk, "node")?.context("no node")?;
        let loops = attached_below(host.directory())?;
        let mine = loops.iter().find(|one| one.device.display().to_string() == node);
        // The played kernel may still hold the first device.
        ensure!(
            mine.is_some_and(|one| one.backing.ends_with("second.img")),
            "{node} of {loops:?} after {delay} times 300 us"
        );
        host.unplug(&disk)?.done()?;
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn dom0_fifty_devices_attach_and_detach_at_once() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let mut devices = Vec::new();
    for index in 0..25 {
        devices.push(host.attach_disk(3, index)?);
        devices.push(host.attach_vif(3, index)?);
    }
    for action in ["add", "remove"] {
        let calls: Vec<Call> = devices
            .iter()
            .map(|device| host.call(device, action))
            .collect::<Result<_>>()?;
        for call in calls {
            call.answer()?.done()?;
        }
        let plugged = if action == "add" { 25 } else { 0 };
        assert_eq!(host.namespace().ports("xenbr0")?.len(), plugged);
    }
    for device in &devices {
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn driver_domain_answers_no_script_call() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_connected(&disk)?;
    for action in ["add", "remove"] {
        host.call(&disk, action)?.answer()?.says("failed", &["driver-domain"])?;
    }
    assert_eq!(attached_below(host.directory())?.len(), 1);
    host.end_guest(3, &[disk])
}
