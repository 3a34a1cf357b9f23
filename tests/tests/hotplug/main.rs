//! The `/hotplug` protocol: `xenplug` in dom0 requests real disks and vifs from the daemon in a driver domain, with the
//! permissions that one has, and from the daemon in dom0, on the real xenstored.

mod crash;
mod detach;
mod dom0;
mod fixture;
mod loss;
mod refusals;
mod status;

use std::{fs::File, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use fixture::Fixture;
use xenplug_tests::harness::attached_below;

#[test]
fn requested_disk_and_vif_hold_nothing_after_detach() -> Result<()> {
    let fixture = Fixture::new()?;
    let baseline = fixture.host.baseline()?;
    for _ in 0..3 {
        let disk = fixture.disk("a.img")?;
        fixture.attach(&disk)?;
        fixture.attach(&fixture.vif())?;
        fixture.expect(&disk, "4")?;
        fixture.expect(&fixture.vif(), "4")?;
        assert_eq!(attached_below(fixture.host.directory())?.len(), 1);
        assert_eq!(fixture.host.namespace().ports("xenbr0")?, ["vif3.0"]);
        // Detached at once.
        fixture.detach(&disk)?;
        assert_eq!(attached_below(fixture.host.directory())?, []);
        fixture.detach(&fixture.vif())?;
        assert_eq!(fixture.host.namespace().ports("xenbr0")?, [""; 0]);
    }
    baseline.assert_same(&fixture.host)
}

#[test]
fn driver_domain_creates_directories_with_libxls_permissions() -> Result<()> {
    let fixture = Fixture::new()?;
    let disk = fixture.disk("a.img")?;
    fixture.attach(&disk)?;
    let mut store = fixture.host.connect()?;
    let (backend, frontend) = (disk.device.backend(), disk.device.frontend());
    for (node, value, permissions) in [
        (format!("{backend}/frontend"), Some(&*frontend), ["n1", "r3"]),
        (format!("{backend}/frontend-id"), Some("3"), ["n1", "r3"]),
        (format!("{backend}/state"), None, ["n1", "r3"]),
        (format!("{backend}/params"), None, ["n1", "r3"]),
        (format!("{backend}/hotplug-status"), Some("connected"), ["n1", "r3"]),
        (format!("{frontend}/backend"), Some(&*backend), ["n1", "r3"]),
        (format!("{frontend}/backend-id"), Some("1"), ["n1", "r3"]),
        (format!("{frontend}/virtual-device"), Some("51712"), ["n1", "r3"]),
        (format!("{frontend}/state"), None, ["n1", "b3"]),
    ] {
        let found = store.read(&node).with_context(|| node.clone())?;
        ensure!(value.is_none_or(|value| value == found), "{node} is {found:?}");
        assert_eq!(store.permissions(&node)?, permissions, "{node}");
    }
    // The guest's name, which the driver domain may not read.
    let status = fixture.host.daemon().context("no daemon")?.status()?;
    let vm = store.read("/local/domain/3/vm")?;
    assert_eq!(status["devices"][0]["vm"], vm, "{status}");
    fixture.detach(&disk)
}

#[test]
fn detach_returns_after_the_last_user_has_closed_the_disk() -> Result<()> {
    let fixture = Fixture::new()?;
    let disk = fixture.disk("a.img")?;
    fixture.attach(&disk)?;
    // blkback has the disk open for a moment after it has written state 6.
    let user = File::open(&attached_below(fixture.host.directory())?[0].device)?;
    let mut detaching = fixture.spawn("detach", &disk, &["--wait", "--timeout", "60s"])?;
    let request = fixture
        .host
        .connect()?
        .wait(&disk.device.backend(), fixture::TIMEOUT, |one| one.is_none())?;
    ensure!(request.is_ok(), "the backend stays");
    thread::sleep(Duration::from_millis(700));
    ensure!(detaching.try_wait()?.is_none(), "it has returned");
    assert_eq!(fixture.state(&disk)?.as_deref(), Some("5"));
    drop(user);
    ensure!(detaching.wait()?.success(), "it has failed");
    assert_eq!(attached_below(fixture.host.directory())?, []);
    Ok(())
}

#[test]
fn libxl_device_is_unaffected_by_device_requests() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let baseline = fixture.host.baseline()?;
    let disk = fixture.disk("a.img")?;
    let image = fixture.host.image("theirs.img", 4)?;
    fixture
        .host
        .attach(&disk.device, &xenplug_tests::harness::Disk::on(&image))?;
    fixture.host.expect_connected(&disk.device)?;
    let message = fixture.fails("attach", &disk, 1)?;
    ensure!(message.contains("which another toolstack has made"), "{message}");
    let message = fixture.fails("detach", &disk, 1)?;
    ensure!(message.contains("there is no"), "{message}");
    fixture.host.expect_connected(&disk.device)?;
    fixture.host.detach(&disk.device)?;
    fixture.attach(&disk)?;
    fixture.detach(&disk)?;
    baseline.assert_same(&fixture.host)
}
