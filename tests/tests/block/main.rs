//! Disk handlers in dom0, and in a driver domain those with a process as backend, on the real xenstored and real loop
//! devices, each handler with its helper.
//!
//! The helpers are fake programs, which keep state like the real ones and record their calls. The real ones need a
//! kernel module (iscsi_tcp, nbd) or a program (tapdisk) that the test host may lack.

mod foreign_disks;
mod iscsi;
mod nbd;
mod others;
mod qdisk;
mod tap;
mod tapback;

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Device, Helper, Kind, TestHost};

/// Time after which a helper certainly runs.
const MOMENT: Duration = Duration::from_millis(300);

/// Time that an expected event may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Starts a host in dom0 mode, whose daemon has one more plugin. `table` makes its configuration and its helper.
fn host_with(table: impl FnOnce(&TestHost, &Path) -> Result<String>) -> Result<TestHost> {
    let mut host = TestHost::new()?;
    let helpers = host.directory().join("helpers");
    let table = table(&host, &helpers)?;
    let config = host.config_of_dom0()?.with(&table);
    host.start_daemon(config)?;
    Ok(host)
}

/// Waits until the condition holds.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + TIMEOUT;
    while !is_so()? {
        ensure!(Instant::now() < end, "not within {TIMEOUT:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Returns the number of a block device in the format of `physical-device`.
fn physical_device(path: &str) -> Result<String> {
    use std::os::unix::fs::MetadataExt;
    let number = fs::metadata(path).with_context(|| path.to_owned())?.rdev();
    Ok(format!(
        "{:x}:{:x}",
        rustix::fs::major(number),
        rustix::fs::minor(number)
    ))
}

/// Kills the daemon while a helper call with this word runs, restarts it, and waits until the device is released.
fn kill_in_the_middle(host: &mut TestHost, helper: &Helper, device: &Device, word: &str) -> Result<()> {
    if device.kind != Kind::Vbd3 {
        host.expect_state(device, "2")?;
    }
    let call = host.call(device, "add")?;
    until(word, || Ok(helper.calls().iter().any(|call| call.contains(word))))?;
    host.daemon_mut()?.kill()?;
    drop(call);
    host.daemon_mut()?.restart()?;
    host.call(device, "remove")?.answer()?.done()
}
