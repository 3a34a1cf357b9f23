//! Kills of the daemon at every system call.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use xenplug_tests::{
    cases::{Length, length},
    harness::{Device, Loop, TestHost, attached_below},
    syscall_injector::{Call, Injection, Point, why_pure},
};

use super::{
    faults::{Outcome, settled},
    workload::{BLOCK_DEVICE, DISK, NAT, ROUTED, Step, TARGET, TIMEOUT, TRIES, VIF, Workload, every_point},
};

/// Returns the kills before and after a call that has an effect. In long runs also those at all other calls.
fn kills(_: usize, call: &Call) -> Vec<Injection> {
    match (why_pure(call), length()) {
        (Some(_), Length::Short) => Vec::new(),
        (Some(_), Length::Long) => vec![Injection::KillBefore],
        (None, _) => vec![Injection::KillBefore, Injection::KillAfter],
    }
}

/// Kills the daemon at a point, restarts it, and checks that the device comes and goes. Returns `false` if the daemon
/// did not reach the point.
fn killed_at(workload: &mut Workload, step: Step, point: &Point) -> Result<bool> {
    for _ in 0..TRIES {
        if let Some(hit) = killed_once_at(workload, step, point)? {
            return Ok(hit);
        }
    }
    bail!("its loop device is gone each time")
}

/// Does one attempt of [`killed_at`]. Returns `None` if another test took the loop device that was free between the
/// kill and the restart, because blkback had not opened it yet.
fn killed_once_at(workload: &mut Workload, step: Step, point: &Point) -> Result<Option<bool>> {
    let (device, _, hit) = workload.step(step, Some(point))?;
    if hit {
        let daemon = workload.host.daemon_mut()?;
        daemon.kill()?;
        daemon.restart()?;
    }
    match step {
        Step::Attach | Step::Start => {
            let outcome = settled(workload, Step::Start, &device)?;
            if (step, &outcome) == (Step::Attach, &Outcome::Failed) {
                let cause = workload.host.node(&device, "hotplug-error")?.unwrap_or_default();
                ensure!(cause.contains("loop") && cause.ends_with("is gone"), "{cause}");
                workload.host.detach(&device)?;
                workload.baseline.assert_same(&workload.host)?;
                return Ok(None);
            }
            ensure!(outcome == Outcome::Connected, "it came to {outcome:?}");
            workload.host.expect_connected(&device)?;
            workload.whole.assert_alike(&workload.host)?;
            reboot(&workload.host, &device)?;
            workload.host.detach(&device)?;
        }
        Step::Detach => workload.host.toolstack().finish(&device, Duration::from_secs(10))?,
    }
    workload.baseline.assert_same(&workload.host)?;
    Ok(Some(hit))
}

/// Reboots the guest: its frontend goes and comes again, and blkback closes the disk meanwhile. The kernel would clear
/// the loop device then, but the daemon adopted it after the crash and holds it.
fn reboot(host: &TestHost, device: &Device) -> Result<()> {
    let loops = attached_below(host.directory())?;
    let mut store = host.connect()?;
    let state = format!("{}/state", device.backend());
    store.write(&state, "6")?;
    let until = Instant::now() + TIMEOUT;
    while opened(&loops)? {
        ensure!(Instant::now() < until, "the played kernel does not close {loops:?}");
        thread::sleep(Duration::from_millis(1));
    }
    store.write(&state, "2")?;
    host.expect_connected(device)?;
    let now = attached_below(host.directory())?;
    ensure!(now == loops, "{loops:?} before the guest came again, {now:?} after");
    Ok(())
}

/// Returns true if this process, which plays the kernel, has one of these loop devices open.
fn opened(loops: &[Loop]) -> Result<bool> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        if loops.iter().any(|attached| attached.device == target) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn disk_survives_a_daemon_kill_at_any_syscall() -> Result<()> {
    every_point("a disk", DISK, kills, killed_at)
}

#[test]
fn vif_survives_a_daemon_kill_at_any_syscall() -> Result<()> {
    every_point("a vif", VIF, kills, killed_at)
}

#[test]
fn block_device_survives_a_daemon_kill_at_any_syscall() -> Result<()> {
    every_point("a block device", BLOCK_DEVICE, kills, killed_at)
}

#[test]
fn routed_vif_survives_a_daemon_kill_at_any_syscall() -> Result<()> {
    every_point("a routed vif", ROUTED, kills, killed_at)
}

#[test]
fn nat_vif_survives_a_daemon_kill_at_any_syscall() -> Result<()> {
    every_point("a vif behind NAT", NAT, kills, killed_at)
}

#[test]
fn iscsi_target_survives_a_daemon_kill_at_any_syscall() -> Result<()> {
    every_point("an iSCSI target", TARGET, kills, killed_at)
}
