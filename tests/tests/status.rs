//! What the daemon says of itself.

use anyhow::{Context, Result, ensure};
use xenplug_tests::rig::{Device, Disk, Machine};

#[test]
fn status_tells_each_device_its_plugin_what_is_held_and_its_error() -> Result<()> {
    let mut machine = Machine::with_daemon()?;
    let (good, bad) = (machine.attach_disk(3, 0)?, Device::disk(3, 1));
    machine.attach(&bad, &Disk::on(&machine.images().join("absent.img")))?;
    machine.expect_connected(&good)?;
    machine.expect_status(&bad, "error")?;

    let status = machine.daemon().context("no daemon")?.status()?;
    assert_eq!(
        (status["mode"].as_str(), status["domain"].as_u64()),
        (Some("driver-domain"), Some(0))
    );
    assert_eq!(status["store"]["connected"], true);
    let devices = status["devices"].as_array().context("no list of devices")?;
    let of = |device: &Device| {
        devices
            .iter()
            .find(|one| one["devid"] == device.devid)
            .with_context(|| format!("{device:?} in {status}"))
    };
    assert_eq!(
        (of(&good)?["plugin"].as_str(), of(&good)?["state"].as_str()),
        (Some("phy"), Some("connected"))
    );
    ensure!(of(&good)?["held"].to_string().contains("/dev/loop"), "{status}");
    ensure!(of(&good)?["error"].is_null(), "{status}");
    ensure!(of(&bad)?["error"].to_string().contains("absent.img"), "{status}");
    machine.end_guest(3, &[good, bad])
}
