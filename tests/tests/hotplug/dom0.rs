//! Requests to dom0's own daemon, which waits for script calls otherwise.

use anyhow::{Result, ensure};
use xenplug_tests::harness::attached_below;

use crate::fixture::Fixture;

#[test]
fn dom0_serves_requests_and_leaves_scripts_their_devices() -> Result<()> {
    let mut fixture = Fixture::in_dom0()?;
    let baseline = fixture.host.baseline()?;
    // A device of libxl that a script call attaches, and one without a script call.
    let attached = fixture.host.plug_disk(4, 0)?;
    let foreign = fixture.host.attach_disk(5, 0)?;
    let (disk, vif) = (fixture.disk("a.img")?, fixture.vif());
    for _ in 0..2 {
        for requested in [&disk, &vif] {
            fixture.attach(requested)?;
            fixture.expect(requested, "4")?;
        }
        assert_eq!(fixture.host.namespace().ports("xenbr0")?, ["vif3.0"]);
        assert_eq!(attached_below(fixture.host.directory())?.len(), 2);
        fixture.detach(&disk)?;
        assert_eq!(attached_below(fixture.host.directory())?.len(), 1);
        fixture.detach(&vif)?;
        assert_eq!(fixture.host.namespace().ports("xenbr0")?, [""; 0]);
    }
    fixture.host.expect_connected(&attached)?;
    assert_eq!(fixture.host.node(&foreign, "hotplug-status")?, None);
    // The same device key, by a script and by a request, one after the other.
    let of_libxl = fixture.host.plug_disk(3, 0)?;
    let message = fixture.fails("attach", &disk, 1)?;
    ensure!(message.contains("which another toolstack has made"), "{message}");
    fixture.host.unplug(&of_libxl)?.done()?;
    fixture.attach(&disk)?;
    fixture.detach(&disk)?;

    fixture.host.unplug(&attached)?.done()?;
    fixture.host.toolstack().forget(&foreign)?;
    for guest in [4, 5] {
        fixture.host.toolstack().bury(guest)?;
    }
    baseline.assert_same(&fixture.host)
}

#[test]
fn dead_guest_ends_its_device_requests_in_dom0() -> Result<()> {
    let mut fixture = Fixture::in_dom0()?;
    let disk = fixture.disk("a.img")?;
    fixture.attach(&disk)?;
    fixture.expect(&disk, "4")?;
    fixture.host.xenstored().kill_domain(3)?;
    fixture.host.toolstack().bury(3)?;
    fixture.expect(&disk, "6")?;
    assert_eq!(attached_below(fixture.host.directory())?, []);
    assert_eq!(fixture.host.connect()?.find(&disk.device.backend())?, None);
    Ok(())
}
