//! dom0's own daemon is asked, which else waits for scripts.

use anyhow::{Result, ensure};
use xenplug_tests::harness::attached_below;

use crate::stage::Stage;

#[test]
fn dom0_serves_requests_and_leaves_scripts_their_devices() -> Result<()> {
    let mut stage = Stage::in_dom0()?;
    let baseline = stage.machine.baseline()?;
    // libxl's, which its script asks for, and one that nobody asks for.
    let plugged = stage.machine.plug_disk(4, 0)?;
    let foreign = stage.machine.attach_disk(5, 0)?;
    let (disk, card) = (stage.disk("a.img")?, stage.card());
    for _ in 0..2 {
        for asked in [&disk, &card] {
            stage.attach(asked)?;
            stage.expect(asked, "4")?;
        }
        assert_eq!(stage.machine.namespace().ports("xenbr0")?, ["vif3.0"]);
        assert_eq!(attached_below(stage.machine.directory())?.len(), 2);
        stage.detach(&disk)?;
        assert_eq!(attached_below(stage.machine.directory())?.len(), 1);
        stage.detach(&card)?;
        assert_eq!(stage.machine.namespace().ports("xenbr0")?, [""; 0]);
    }
    stage.machine.expect_connected(&plugged)?;
    assert_eq!(stage.machine.node(&foreign, "hotplug-status")?, None);
    // At the same place, by a script and by a request, one after the other.
    let theirs = stage.machine.plug_disk(3, 0)?;
    let said = stage.fails("attach", &disk, 1)?;
    ensure!(said.contains("which another toolstack has made"), "{said}");
    stage.machine.unplug(&theirs)?.done()?;
    stage.attach(&disk)?;
    stage.detach(&disk)?;

    stage.machine.unplug(&plugged)?.done()?;
    stage.machine.toolstack().forget(&foreign)?;
    for guest in [4, 5] {
        stage.machine.toolstack().bury(guest)?;
    }
    baseline.assert_same(&stage.machine)
}

#[test]
fn dead_guest_ends_its_device_requests_in_dom0() -> Result<()> {
    let mut stage = Stage::in_dom0()?;
    let disk = stage.disk("a.img")?;
    stage.attach(&disk)?;
    stage.expect(&disk, "4")?;
    stage.machine.xenstored().kill_domain(3)?;
    stage.machine.toolstack().bury(3)?;
    stage.expect(&disk, "6")?;
    assert_eq!(attached_below(stage.machine.directory())?, []);
    assert_eq!(stage.machine.connect()?.find(&disk.device.backend())?, None);
    Ok(())
}
