//! Devices of the original scripts stay foreign throughout their life.

use std::thread;

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Device, Disk, TestHost, Vif, attached_below};

use super::MOMENT;

#[test]
fn devices_of_original_scripts_stay_foreign() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let by_daemon = [host.plug_disk(4, 0)?, host.plug_vif(4, 0)?];
    let image = host.image("theirs.img", 4)?;
    let by_scripts = [Device::disk(3, 0), Device::vif(3, 0)];
    for (device, nodes) in by_scripts.iter().zip([Disk::on(&image), Vif::on("xenbr0")]) {
        host.attach(device, &nodes)?;
        host.expect_state(device, "2")?;
        host.scripts().plug(device)?;
        host.expect_connected(device)?;
    }
    for device in &by_daemon {
        host.expect_connected(device)?;
    }
    let connected = host.baseline()?;
    thread::sleep(MOMENT);
    for device in &by_scripts {
        host.call(device, "add")?.answer()?.done()?;
        host.call(device, "remove")?
            .answer()?
            .says("not-served", &["somebody else"])?;
    }
    connected.assert_same(&host)?;

    for device in &by_scripts {
        host.toolstack().detach(device)?;
        host.expect_state(device, "6")?;
        thread::sleep(MOMENT);
        assert_eq!(host.node(device, "hotplug-status")?.as_deref(), Some("connected"));
        host.call(device, "remove")?.answer()?.says("not-served", &[])?;
        host.scripts().unplug(device)?;
        thread::sleep(MOMENT);
        let status = host.node(device, "hotplug-status")?;
        ensure!(status.as_deref() != Some("disconnected"), "it is written to");
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)?;
    assert_eq!(attached_below(host.directory())?.len(), 1);
    host.end_guest_of_dom0(4, &by_daemon)?;
    baseline.assert_same(&host)
}

#[test]
fn devices_attached_by_scripts_before_start_stay_foreign() -> Result<()> {
    let mut host = TestHost::new()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_state(&disk, "2")?;
    host.scripts().plug(&disk)?;
    host.expect_connected(&disk)?;
    host.start_daemon(host.config()?.replacing("\"driver-domain\"", "\"dom0\""))?;
    host.call(&disk, "add")?.answer()?.done()?;
    let answer = host.unplug(&disk)?;
    answer.says("not-served", &["somebody else"])?;
    Ok(())
}
