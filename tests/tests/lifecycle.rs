//! Attach and detach of real disks and vifs on the real xenstored; nothing is left.

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Device, Disk, TestHost, Vif, attached_below};

/// Time that the daemon may take.
const TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn disk_is_attached_and_detached() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_connected(&disk)?;
    let loops = attached_below(host.directory())?;
    ensure!(loops.len() == 1, "{loops:?}");
    assert_eq!(host.node(&disk, "node")?, Some(loops[0].device.display().to_string()));
    assert_eq!(host.node(&disk, "hotplug-error")?, None);
    host.end_guest(3, &[disk])?;
    baseline.assert_same(&host)
}

#[test]
fn late_toolstack_still_finds_the_device_at_state_6() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_connected(&disk)?;
    let mut watcher = host.connect()?;
    watcher.watch(&disk.backend(), "w")?;
    host.toolstack().detach(&disk)?;
    let (status, state) = (
        format!("{}/hotplug-status", disk.backend()),
        format!("{}/state", disk.backend()),
    );
    // The times of the events themselves, so that a late delivery does not count.
    let (mut reported, mut removed) = (None, None);
    while removed.is_none() {
        let event = watcher.event(TIMEOUT)?.context("the directory stays")?;
        if event.path == status && watcher.find(&status)?.as_deref() == Some("disconnected") {
            reported = Some(Instant::now());
            assert_eq!(
                watcher.find(&state)?.as_deref(),
                Some("6"),
                "removed when it was reported"
            );
        }
        if event.path == disk.backend() && reported.is_some() {
            removed = Some(Instant::now());
        }
    }
    let stayed = reported.zip(removed).map(|(reported, removed)| removed - reported);
    ensure!(
        stayed.is_some_and(|stayed| stayed >= Duration::from_millis(50)),
        "it stayed for {stayed:?}"
    );
    host.end_guest(3, &[disk])
}

#[test]
fn vif_is_attached_and_detached() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    host.namespace().ip("link set xenbr0 mtu 1400")?;
    let baseline = host.baseline()?;
    let vif = host.attach_vif(3, 0)?;
    host.expect_connected(&vif)?;
    let link = host.namespace().link(&vif.link())?.context("no link")?;
    assert_eq!(link["master"], "xenbr0");
    assert_eq!(link["address"], "fe:ff:ff:ff:ff:ff");
    assert_eq!(link["mtu"], 1400);
    ensure!(link["flags"].to_string().contains("\"UP\""), "{link}");
    assert_eq!(
        host.connect()?.find(&format!("{}/mtu", vif.frontend()))?.as_deref(),
        Some("1400")
    );
    host.end_guest(3, &[vif])?;
    baseline.assert_same(&host)
}

#[test]
fn vif_gets_the_name_that_the_toolstack_requests() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let vif = Device::vif(3, 0);
    host.attach(&vif, &Vif::on("xenbr0").with("vifname", "web0"))?;
    host.expect_connected(&vif)?;
    assert_eq!(host.namespace().ports("xenbr0")?, ["web0"]);
    host.end_guest(3, &[vif])?;
    baseline.assert_same(&host)
}

#[test]
fn read_only_disk_rejects_writes() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let disk = Device::disk(3, 0);
    let image = host.image("a.img", 4)?;
    host.attach(&disk, &Disk::on(&image).with("mode", "r"))?;
    host.expect_connected(&disk)?;
    let device = host.node(&disk, "node")?.context("no node")?;
    let number = device.trim_start_matches("/dev/");
    assert_eq!(fs::read_to_string(format!("/sys/block/{number}/ro"))?.trim(), "1");
    host.end_guest(3, &[disk])
}

#[test]
fn disk_with_deleted_image_leaves_no_loop_device() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_connected(&disk)?;
    fs::remove_file(host.images().join("3-0.img"))?;
    host.end_guest(3, &[disk])?;
    baseline.assert_same(&host)
}

#[test]
fn fifty_devices_attach_and_detach_at_once() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let mut devices = Vec::new();
    for guest in 1..=5 {
        for index in 0..5 {
            devices.push(host.attach_disk(guest, index)?);
            devices.push(host.attach_vif(guest, index)?);
        }
    }
    for device in &devices {
        host.expect_connected(device)?;
    }
    assert_eq!(attached_below(host.directory())?.len(), 25);
    assert_eq!(host.namespace().ports("xenbr0")?.len(), 25);
    for guest in 1..=5 {
        let its: Vec<_> = devices
            .iter()
            .filter(|device| device.frontend == guest)
            .copied()
            .collect();
        host.end_guest(guest, &its)?;
    }
    baseline.assert_same(&host)
}

#[test]
fn reattached_device_connects_again() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let mut disk = Device::disk(3, 0);
    for _ in 0..20 {
        disk = host.attach_disk(3, 0)?;
        host.expect_connected(&disk)?;
        host.detach(&disk)?;
    }
    host.end_guest(3, &[disk])?;
    baseline.assert_same(&host)
}

#[test]
fn rebooting_guest_keeps_its_devices() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let (disk, vif) = (host.attach_disk(3, 0)?, host.attach_vif(3, 0)?);
    for device in [&disk, &vif] {
        host.expect_connected(device)?;
    }
    let before = attached_below(host.directory())?;
    for device in [&disk, &vif] {
        host.toolstack()
            .store()
            .write(&format!("{}/state", device.backend()), "5")?;
        host.expect_state(device, "6")?;
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(attached_below(host.directory())?, before);
    assert_eq!(host.namespace().ports("xenbr0")?, [vif.link()]);
    for device in [&disk, &vif] {
        assert_eq!(host.node(device, "hotplug-status")?.as_deref(), Some("connected"));
    }
    host.end_guest(3, &[disk, vif])
}

#[test]
fn dead_guest_leaves_nothing() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let (disk, vif) = (host.attach_disk(3, 0)?, host.attach_vif(3, 0)?);
    for device in [&disk, &vif] {
        host.expect_connected(device)?;
    }
    host.xenstored().kill_domain(3)?;
    for device in [&disk, &vif] {
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn removed_backend_directory_is_not_recreated() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    for delay in 0..20 {
        let (disk, vif) = (host.attach_disk(3, 0)?, host.attach_vif(3, 0)?);
        std::thread::sleep(std::time::Duration::from_micros(200 * delay));
        for device in [&disk, &vif] {
            host.toolstack().forget(device)?;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        for device in [&disk, &vif] {
            assert_eq!(
                host.connect()?.find(&device.backend())?,
                None,
                "after {delay} times 200 us"
            );
        }
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn writable_file_is_busy_for_another_guest_by_any_name() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let first = host.attach_disk(3, 0)?;
    host.expect_connected(&first)?;
    let image = host.images().join("3-0.img");
    symlink(&image, host.images().join("by-symlink.img"))?;
    fs::hard_link(&image, host.images().join("by-hard-link.img"))?;
    for (index, name) in ["3-0.img", "by-symlink.img", "by-hard-link.img"]
        .into_iter()
        .enumerate()
    {
        for mode in ["w", "r"] {
            let second = Device::disk(4, index as u32);
            host.attach(&second, &Disk::on(&host.images().join(name)).with("mode", mode))?;
            host.expect_failure(&second, "busy", &["phy"])?;
            host.toolstack().forget(&second)?;
        }
    }
    assert_eq!(attached_below(host.directory())?.len(), 1);
    host.detach(&first)?;
    let second = Device::disk(4, 0);
    host.attach(&second, &Disk::on(&image))?;
    host.expect_connected(&second)?;
    host.end_guest(4, &[second])
}
