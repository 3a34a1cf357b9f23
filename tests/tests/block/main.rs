//! The block family in dom0, and in a driver domain what has a process for a backend, on the real xenstored, loop devices and
//! the kernel's own rules, each handler with its helper.
//!
//! The helpers are fakes: programs that keep state as the real ones do, and write down how they were called. What
//! they stand in for needs a kernel module (iscsi_tcp, nbd) or a program (tapdisk) that is not here.

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

/// Long enough for a helper to be at work.
const MOMENT: Duration = Duration::from_millis(300);

/// Time that an expected event may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A host in dom0's mode, whose daemon has one more plugin, with a helper in a folder.
fn host_with(table: impl FnOnce(&TestHost, &Path) -> Result<String>) -> Result<TestHost> {
    let mut host = TestHost::new()?;
    let helpers = host.directory().join("helpers");
    let table = table(&host, &helpers)?;
    let config = host.config_of_dom0()?.with(&table);
    host.start_daemon(config)?;
    Ok(host)
}

/// Waits for something.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + TIMEOUT;
    while !is_so()? {
        ensure!(Instant::now() < end, "not within {TIMEOUT:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The number of a block device, as blkback reads it.
fn physical_device(path: &str) -> Result<String> {
    use std::os::unix::fs::MetadataExt;
    let number = fs::metadata(path).with_context(|| path.to_owned())?.rdev();
    Ok(format!(
        "{:x}:{:x}",
        rustix::fs::major(number),
        rustix::fs::minor(number)
    ))
}

/// Kills the daemon while a helper runs that is at its word, starts it again, and waits until the device is given back.
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
