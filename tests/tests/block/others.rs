//! Disks of block-dummy, SCSI devices, and faults of the original scripts that the daemon does not copy.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Device, Disk, Scsi, TestHost, attached_below, handlers};

use super::host_with;

#[test]
fn dummy_disk_is_a_file_on_a_loop_device() -> Result<()> {
    let mut host = host_with(|host, _| Ok(handlers::block_dummy(&host.images())))?;
    let baseline = host.baseline()?;
    let disk = Device::disk(3, 0);
    // A path with a colon and a space: the script stops at the colon, and splits at the space.
    let image = host.image("a b:c.img", 4)?;
    let on = |params: String| Disk::on(Path::new(&params)).with("script", "/etc/xen/scripts/block-dummy");
    host.plug(&disk, &on(format!("dummy:{}", image.display())))?.done()?;
    host.expect_connected(&disk)?;
    let loops = attached_below(host.directory())?;
    ensure!(
        loops.len() == 1 && loops[0].backing.ends_with("/a b:c.img"),
        "{loops:?}"
    );
    assert_eq!(host.node(&disk, "node")?, Some(loops[0].device.display().to_string()));
    host.unplug(&disk)?.done()?;
    for params in [
        image.display().to_string(),
        "dummy:".to_owned(),
        format!("aio:{}", image.display()),
    ] {
        host.plug(&disk, &on(params))?
            .says("failed", &["block-dummy", "params"])?;
        host.unplug(&disk)?.done()?;
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn scsi_device_connects_without_resources() -> Result<()> {
    let mut host = host_with(|_, _| Ok(handlers::VSCSI.to_owned()))?;
    let device = Device::scsi(3);
    host.plug(&device, &Scsi::of("0:0:0:0"))?.done()?;
    host.expect_connected(&device)?;
    host.call(&device, "remove")?.answer()?.done()?;
    host.expect_status(&device, "disconnected")?;
    host.end_guest_of_dom0(3, &[device])
}

#[test]
fn dummy_disk_with_deleted_image_releases_its_loop_device() -> Result<()> {
    let mut host = TestHost::new()?;
    let mut leaked = Vec::new();
    for original in [true, false] {
        if !original {
            let config = host.config()?.replacing("\"driver-domain\"", "\"dom0\"");
            host.start_daemon(config)?;
        }
        let disk = Device::disk(3, 0);
        let image = host.image("gone.img", 4)?;
        host.attach(&disk, &Disk::on(&image))?;
        host.expect_state(&disk, "2")?;
        if original {
            host.scripts().plug(&disk)?;
        } else {
            host.call(&disk, "add")?.answer()?.done()?;
        }
        host.expect_connected(&disk)?;
        fs::remove_file(image)?;
        host.toolstack().detach(&disk)?;
        host.expect_state(&disk, "6")?;
        if original {
            host.scripts().unplug(&disk)?;
        } else {
            host.call(&disk, "remove")?.answer()?.done()?;
        }
        host.toolstack().forget(&disk)?;
        leaked.push(attached_below(host.directory())?.len());
        xenplug_tests::harness::detach_below(host.directory())?;
    }
    assert_eq!(
        leaked,
        [1, 0],
        "loop devices left by the original script and by the daemon"
    );
    host.toolstack().bury(3)
}
