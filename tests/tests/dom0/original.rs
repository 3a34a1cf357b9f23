//! Beside the original scripts: what they plugged is theirs, from its beginning to its end.

use std::thread;

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Device, Disk, TestHost, Vif, attached_below};

use super::MOMENT;

#[test]
fn devices_of_original_scripts_stay_foreign() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let ours = [machine.plug_disk(4, 0)?, machine.plug_card(4, 0)?];
    let image = machine.image("theirs.img", 4)?;
    let theirs = [Device::disk(3, 0), Device::card(3, 0)];
    for (device, nodes) in theirs.iter().zip([Disk::on(&image), Vif::on("xenbr0")]) {
        machine.attach(device, &nodes)?;
        machine.expect_state(device, "2")?;
        machine.scripts().plug(device)?;
        machine.expect_connected(device)?;
    }
    for device in &ours {
        machine.expect_connected(device)?;
    }
    let plugged = machine.baseline()?;
    thread::sleep(MOMENT);
    for device in &theirs {
        machine.call(device, "add")?.answer()?.done()?;
        machine
            .call(device, "remove")?
            .answer()?
            .says("not-served", &["somebody else"])?;
    }
    plugged.assert_same(&machine)?;

    for device in &theirs {
        machine.toolstack().detach(device)?;
        machine.expect_state(device, "6")?;
        thread::sleep(MOMENT);
        assert_eq!(machine.node(device, "hotplug-status")?.as_deref(), Some("connected"));
        machine.call(device, "remove")?.answer()?.says("not-served", &[])?;
        machine.scripts().unplug(device)?;
        thread::sleep(MOMENT);
        let status = machine.node(device, "hotplug-status")?;
        ensure!(status.as_deref() != Some("disconnected"), "it is written to");
        machine.toolstack().forget(device)?;
    }
    machine.toolstack().bury(3)?;
    assert_eq!(attached_below(machine.directory())?.len(), 1);
    machine.end_guest_of_dom0(4, &ours)?;
    baseline.assert_same(&machine)
}

#[test]
fn devices_attached_by_scripts_before_start_stay_foreign() -> Result<()> {
    let mut machine = TestHost::new()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_state(&disk, "2")?;
    machine.scripts().plug(&disk)?;
    machine.expect_connected(&disk)?;
    machine.start_daemon(machine.config()?.replacing("\"driver-domain\"", "\"dom0\""))?;
    machine.call(&disk, "add")?.answer()?.done()?;
    let answer = machine.unplug(&disk)?;
    answer.says("not-served", &["somebody else"])?;
    Ok(())
}
