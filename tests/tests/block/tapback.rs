//! Disks of kind `vbd3` in a driver domain, with the permissions that one has: tapdisk serves them for tapback. The
//! daemon finds them by its watch, without a script call. The test plays tapback, and tap-ctl is a fake program.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use xenplug_tests::{
    harness::{Device, Disk, Helper, TestHost, handlers},
    loud::say,
};

use super::until;

const A: Device = Device::tap(3, 0).served_by(1);
const B: Device = Device::tap(4, 0).served_by(1);

struct Tapback {
    tap_ctl: Helper,
    host: TestHost,
}

impl Tapback {
    fn new() -> Result<Self> {
        say("NOTE: tapback is played, and tap-ctl is a fake; no block is read");
        let mut host = TestHost::apart()?;
        let helpers = host.directory().join("helpers");
        let tap_ctl = Helper::tap_ctl(&helpers)?;
        let table = handlers::block_tap(&helpers, &host.images());
        host.start_daemon(host.config()?.with(&table))?;
        host.image("a.img", 4)?;
        Ok(Self { tap_ctl, host })
    }

    /// Writes a disk on the image, as libxl does.
    fn attach(&mut self, disk: &Device) -> Result<()> {
        let params = format!("aio:{}/a.img", self.host.images().display());
        let nodes = Disk::on(Path::new(&params)).with("mode", "r");
        self.host
            .attach(disk, &nodes.with("script", "/etc/xen/scripts/block-tap"))
    }

    fn node(&self, disk: &Device, name: &str) -> Result<String> {
        let node = self.host.node(disk, name)?;
        node.with_context(|| format!("there is no {name}"))
    }

    /// Counts the allocated minors.
    fn tapdisks(&self) -> Result<usize> {
        let names = fs::read_dir(self.tap_ctl.file("."))?.map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<Result<_>>()?;
        Ok(names
            .iter()
            .filter(|name| name.to_string_lossy().starts_with("minor"))
            .count())
    }
}

#[test]
fn tapback_gets_only_the_socket_and_writes_the_state_itself() -> Result<()> {
    let mut tapback = Tapback::new()?;
    let baseline = tapback.host.baseline()?;
    // tapback is slow here.
    tapback.host.stop_kernel();
    tapback.attach(&A)?;
    tapback.host.expect_status(&A, "connected")?;
    assert_eq!(tapback.node(&A, "state")?, "1", "only tapback writes the state");
    let pid = tapback.node(&A, "pid")?;
    assert_eq!(
        tapback.node(&A, "physical-device-path")?,
        format!("/run/blktap-control/nbd{pid}.0")
    );
    assert_eq!(tapback.host.node(&A, "physical-device")?, None);
    tapback.host.start_kernel()?;
    tapback.host.expect_connected(&A)?;

    // The same tapdisk serves a second reader, and ends with the last one, also after a restart of the daemon.
    tapback.attach(&B)?;
    tapback.host.expect_connected(&B)?;
    assert_eq!(tapback.node(&B, "pid")?, pid);
    tapback.host.daemon_mut()?.kill()?;
    tapback.host.daemon_mut()?.restart()?;
    tapback.host.end_guest(3, &[A])?;
    tapback.host.expect_connected(&B)?;
    assert_eq!(tapback.tapdisks()?, 1);
    tapback.host.end_guest(4, &[B])?;
    assert_eq!(tapback.tapdisks()?, 0);
    baseline.assert_same(&tapback.host)
}

#[test]
fn tapdisk_of_a_disk_removed_during_downtime_is_ended() -> Result<()> {
    let mut tapback = Tapback::new()?;
    tapback.attach(&A)?;
    tapback.host.expect_connected(&A)?;
    tapback.host.daemon_mut()?.kill()?;
    tapback.host.toolstack().forget(&A)?;
    tapback.host.toolstack().bury(3)?;
    assert_eq!(tapback.tapdisks()?, 1);
    tapback.host.daemon_mut()?.restart()?;
    until("the tapdisk ends", || Ok(tapback.tapdisks()? == 0))
}
