//! The daemon plugs real disks and cards on the real xenstored, and nothing is left when they go.

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Device, Disk, TestHost, Vif, attached_below};

/// How long the daemon may take for what it is to do.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn disk_is_attached_and_detached() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_connected(&disk)?;
    let loops = attached_below(machine.directory())?;
    ensure!(loops.len() == 1, "{loops:?}");
    assert_eq!(
        machine.node(&disk, "node")?,
        Some(loops[0].device.display().to_string())
    );
    assert_eq!(machine.node(&disk, "hotplug-error")?, None);
    machine.end_guest(3, &[disk])?;
    baseline.assert_same(&machine)
}

#[test]
fn late_toolstack_still_finds_the_device_at_state_6() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_connected(&disk)?;
    let mut watcher = machine.connect()?;
    watcher.watch(&disk.backend(), "w")?;
    machine.toolstack().detach(&disk)?;
    let (status, state) = (
        format!("{}/hotplug-status", disk.backend()),
        format!("{}/state", disk.backend()),
    );
    // The events' own times: they come one after the other, so that a late one does not make the time between longer.
    let (mut told, mut removed) = (None, None);
    while removed.is_none() {
        let event = watcher.event(PATIENCE)?.context("the directory stays")?;
        if event.path == status && watcher.find(&status)?.as_deref() == Some("disconnected") {
            told = Some(Instant::now());
            assert_eq!(watcher.find(&state)?.as_deref(), Some("6"), "removed when it was told");
        }
        if event.path == disk.backend() && told.is_some() {
            removed = Some(Instant::now());
        }
    }
    let stayed = told.zip(removed).map(|(told, removed)| removed - told);
    ensure!(
        stayed.is_some_and(|stayed| stayed >= Duration::from_millis(50)),
        "it stayed for {stayed:?}"
    );
    machine.end_guest(3, &[disk])
}

#[test]
fn vif_is_attached_and_detached() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    machine.namespace().ip("link set xenbr0 mtu 1400")?;
    let baseline = machine.baseline()?;
    let card = machine.attach_card(3, 0)?;
    machine.expect_connected(&card)?;
    let link = machine.namespace().link(&card.link())?.context("no link")?;
    assert_eq!(link["master"], "xenbr0");
    assert_eq!(link["address"], "fe:ff:ff:ff:ff:ff");
    assert_eq!(link["mtu"], 1400);
    ensure!(link["flags"].to_string().contains("\"UP\""), "{link}");
    assert_eq!(
        machine.connect()?.find(&format!("{}/mtu", card.frontend()))?.as_deref(),
        Some("1400")
    );
    machine.end_guest(3, &[card])?;
    baseline.assert_same(&machine)
}

#[test]
fn vif_gets_the_name_that_the_toolstack_requests() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let card = Device::card(3, 0);
    machine.attach(&card, &Vif::on("xenbr0").with("vifname", "web0"))?;
    machine.expect_connected(&card)?;
    assert_eq!(machine.namespace().ports("xenbr0")?, ["web0"]);
    machine.end_guest(3, &[card])?;
    baseline.assert_same(&machine)
}

#[test]
fn read_only_disk_rejects_writes() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let disk = Device::disk(3, 0);
    let image = machine.image("a.img", 4)?;
    machine.attach(&disk, &Disk::on(&image).with("mode", "r"))?;
    machine.expect_connected(&disk)?;
    let device = machine.node(&disk, "node")?.context("no node")?;
    let number = device.trim_start_matches("/dev/");
    assert_eq!(fs::read_to_string(format!("/sys/block/{number}/ro"))?.trim(), "1");
    machine.end_guest(3, &[disk])
}

#[test]
fn disk_with_deleted_image_leaves_no_loop_device() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_connected(&disk)?;
    fs::remove_file(machine.images().join("3-0.img"))?;
    machine.end_guest(3, &[disk])?;
    baseline.assert_same(&machine)
}

#[test]
fn fifty_devices_attach_and_detach_at_once() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let mut devices = Vec::new();
    for guest in 1..=5 {
        for index in 0..5 {
            devices.push(machine.attach_disk(guest, index)?);
            devices.push(machine.attach_card(guest, index)?);
        }
    }
    for device in &devices {
        machine.expect_connected(device)?;
    }
    assert_eq!(attached_below(machine.directory())?.len(), 25);
    assert_eq!(machine.namespace().ports("xenbr0")?.len(), 25);
    for guest in 1..=5 {
        let its: Vec<_> = devices
            .iter()
            .filter(|device| device.frontend == guest)
            .copied()
            .collect();
        machine.end_guest(guest, &its)?;
    }
    baseline.assert_same(&machine)
}

#[test]
fn reattached_device_connects_again() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let mut disk = Device::disk(3, 0);
    for _ in 0..20 {
        disk = machine.attach_disk(3, 0)?;
        machine.expect_connected(&disk)?;
        machine.detach(&disk)?;
    }
    machine.end_guest(3, &[disk])?;
    baseline.assert_same(&machine)
}

#[test]
fn rebooting_guest_keeps_its_devices() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let (disk, card) = (machine.attach_disk(3, 0)?, machine.attach_card(3, 0)?);
    for device in [&disk, &card] {
        machine.expect_connected(device)?;
    }
    let before = attached_below(machine.directory())?;
    for device in [&disk, &card] {
        machine
            .toolstack()
            .store()
            .write(&format!("{}/state", device.backend()), "5")?;
        machine.expect_state(device, "6")?;
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(attached_below(machine.directory())?, before);
    assert_eq!(machine.namespace().ports("xenbr0")?, [card.link()]);
    for device in [&disk, &card] {
        assert_eq!(machine.node(device, "hotplug-status")?.as_deref(), Some("connected"));
    }
    machine.end_guest(3, &[disk, card])
}

#[test]
fn dead_guest_leaves_nothing() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let (disk, card) = (machine.attach_disk(3, 0)?, machine.attach_card(3, 0)?);
    for device in [&disk, &card] {
        machine.expect_connected(device)?;
    }
    machine.xenstored().kill_domain(3)?;
    for device in [&disk, &card] {
        machine.toolstack().forget(device)?;
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn removed_backend_directory_is_not_recreated() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    for delay in 0..20 {
        let (disk, card) = (machine.attach_disk(3, 0)?, machine.attach_card(3, 0)?);
        std::thread::sleep(std::time::Duration::from_micros(200 * delay));
        for device in [&disk, &card] {
            machine.toolstack().forget(device)?;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        for device in [&disk, &card] {
            assert_eq!(
                machine.connect()?.find(&device.backend())?,
                None,
                "after {delay} times 200 us"
            );
        }
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn writable_file_is_busy_for_another_guest_by_any_name() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let first = machine.attach_disk(3, 0)?;
    machine.expect_connected(&first)?;
    let image = machine.images().join("3-0.img");
    symlink(&image, machine.images().join("by-symlink.img"))?;
    fs::hard_link(&image, machine.images().join("by-hard-link.img"))?;
    for (index, name) in ["3-0.img", "by-symlink.img", "by-hard-link.img"]
        .into_iter()
        .enumerate()
    {
        for mode in ["w", "r"] {
            let second = Device::disk(4, index as u32);
            machine.attach(&second, &Disk::on(&machine.images().join(name)).with("mode", mode))?;
            machine.expect_failure(&second, "busy", &["phy"])?;
            machine.toolstack().forget(&second)?;
        }
    }
    assert_eq!(attached_below(machine.directory())?.len(), 1);
    machine.detach(&first)?;
    let second = Device::disk(4, 0);
    machine.attach(&second, &Disk::on(&image))?;
    machine.expect_connected(&second)?;
    machine.end_guest(4, &[second])
}
