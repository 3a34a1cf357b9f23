//! The test script's disks, SCSI devices, and faults of the original that are not copied.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Device, Disk, Scsi, TestHost, attached_below, handlers};

use super::machine_with;

#[test]
fn dummy_disk_is_a_file_on_a_loop_device() -> Result<()> {
    let mut machine = machine_with(|machine, _| Ok(handlers::block_dummy(&machine.images())))?;
    let baseline = machine.baseline()?;
    let disk = Device::disk(3, 0);
    // A colon and a space in the path: the script stops at the one, and reads words.
    let image = machine.image("a b:c.img", 4)?;
    let on = |params: String| Disk::on(Path::new(&params)).with("script", "/etc/xen/scripts/block-dummy");
    machine.plug(&disk, &on(format!("dummy:{}", image.display())))?.done()?;
    machine.expect_connected(&disk)?;
    let loops = attached_below(machine.directory())?;
    ensure!(
        loops.len() == 1 && loops[0].backing.ends_with("/a b:c.img"),
        "{loops:?}"
    );
    assert_eq!(
        machine.node(&disk, "node")?,
        Some(loops[0].device.display().to_string())
    );
    machine.unplug(&disk)?.done()?;
    for params in [
        image.display().to_string(),
        "dummy:".to_owned(),
        format!("aio:{}", image.display()),
    ] {
        machine
            .plug(&disk, &on(params))?
            .says("failed", &["block-dummy", "params"])?;
        machine.unplug(&disk)?.done()?;
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn scsi_device_connects_without_resources() -> Result<()> {
    let mut machine = machine_with(|_, _| Ok(handlers::VSCSI.to_owned()))?;
    let device = Device::scsi(3);
    machine.plug(&device, &Scsi::of("0:0:0:0"))?.done()?;
    machine.expect_connected(&device)?;
    machine.call(&device, "remove")?.answer()?.done()?;
    machine.expect_status(&device, "disconnected")?;
    machine.end_guest_of_dom0(3, &[device])
}

#[test]
fn dummy_disk_with_deleted_image_releases_its_loop_device() -> Result<()> {
    let mut machine = TestHost::new()?;
    let mut leaked = Vec::new();
    for original in [true, false] {
        if !original {
            let config = machine.config()?.replacing("\"driver-domain\"", "\"dom0\"");
            machine.start_daemon(config)?;
        }
        let disk = Device::disk(3, 0);
        let image = machine.image("gone.img", 4)?;
        machine.attach(&disk, &Disk::on(&image))?;
        machine.expect_state(&disk, "2")?;
        if original {
            machine.scripts().plug(&disk)?;
        } else {
            machine.call(&disk, "add")?.answer()?.done()?;
        }
        machine.expect_connected(&disk)?;
        fs::remove_file(image)?;
        machine.toolstack().detach(&disk)?;
        machine.expect_state(&disk, "6")?;
        if original {
            machine.scripts().unplug(&disk)?;
        } else {
            machine.call(&disk, "remove")?.answer()?.done()?;
        }
        machine.toolstack().forget(&disk)?;
        leaked.push(attached_below(machine.directory())?.len());
        xenplug_tests::harness::detach_below(machine.directory())?;
    }
    assert_eq!(leaked, [1, 0], "loop devices that are left, by the original and by us");
    machine.toolstack().bury(3)
}
