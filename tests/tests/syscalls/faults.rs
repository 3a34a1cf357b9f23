//! Failure of every system call, once.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use xenplug_tests::{
    cases::{Length, length},
    harness::Device,
    syscall_injector::{Call, Errno, Injection, Point, faults},
};

use super::workload::{BLOCK_DEVICE, DISK, NAT, ROUTED, Step, TARGET, TIMEOUT, VIF, Workload, every_point};

/// Returns one of the ways in which a call can fail, another one for the next call. In long runs all of them.
fn in_turn(index: usize, call: &Call) -> Vec<Injection> {
    let mut all = faults(call);
    if length() == Length::Short && !all.is_empty() {
        all = vec![all.swap_remove(index % all.len())];
    }
    all
}

/// Final state of a device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Connected,
    Gone,
    Failed,
    /// The daemon has ended.
    Ended,
}

/// Lets one call fail, and checks that the device comes or reports an error, and goes. Returns `false` if the call was
/// not made.
fn failing_at(workload: &mut Workload, step: Step, point: &Point) -> Result<bool> {
    let log_length = workload.host.daemon_mut()?.log().len();
    let (device, _, hit) = workload.step(step, Some(point))?;
    let mut outcome = settled(workload, step, &device)?;
    if matches!(
        point.injection,
        Injection::Fail(Errno::EINTR) | Injection::FailAfter(Errno::EINTR)
    ) {
        ensure!(
            matches!(outcome, Outcome::Connected | Outcome::Gone),
            "{outcome:?}, for a call that was interrupted\n{}",
            workload.host.daemon_log()
        );
    }
    if outcome == Outcome::Ended {
        let daemon = workload.host.daemon_mut()?;
        ensure!(daemon.log().len() > log_length, "the daemon ended without a log line");
        // systemd would restart it.
        daemon.restart()?;
        outcome = settled(workload, step, &device)?;
        ensure!(
            outcome != Outcome::Ended,
            "it ended once more\n{}",
            workload.host.daemon_log()
        );
    }
    if outcome == Outcome::Connected {
        workload.whole.assert_alike(&workload.host)?;
    }
    match step {
        Step::Attach | Step::Start => workload.host.detach(&device)?,
        Step::Detach => workload.host.toolstack().finish(&device, TIMEOUT)?,
    }
    workload.baseline.assert_same(&workload.host)?;
    if outcome == Outcome::Failed {
        // The cause of the failure is gone.
        let device = workload.attach()?;
        workload.host.expect_connected(&device)?;
        workload.host.detach(&device)?;
        workload.baseline.assert_same(&workload.host)?;
    }
    Ok(hit)
}

/// Returns true if a restarted daemon has adopted the device.
fn is_adopted(workload: &mut Workload, device: &Device) -> Result<bool> {
    let daemon = workload.host.daemon_mut()?;
    if !daemon.serves()? {
        return Ok(false);
    }
    let status = daemon.status()?;
    let devices = status["devices"].as_array().into_iter().flatten();
    let mut found = devices.filter(|one| one["devid"] == device.devid);
    Ok(found.any(|one| one["state"] == "connected"))
}

/// Waits for the device's final state.
pub(crate) fn settled(workload: &mut Workload, step: Step, device: &Device) -> Result<Outcome> {
    let until = Instant::now() + TIMEOUT;
    loop {
        if workload.host.daemon_mut()?.ended()?.is_some() {
            return Ok(Outcome::Ended);
        }
        let adopted = step == Step::Start && is_adopted(workload, device)?;
        let node = |name| workload.host.node(device, name);
        let (status, state) = (node("hotplug-status")?.unwrap_or_default(), node("state")?);
        match (step, &*status, state.as_deref()) {
            (Step::Detach, _, None) => return Ok(Outcome::Gone),
            (Step::Attach, "connected", Some("4")) => return Ok(Outcome::Connected),
            (Step::Start, "connected", Some("4")) if adopted => return Ok(Outcome::Connected),
            (Step::Attach | Step::Start, "error" | "busy", _) => {
                let cause = node("hotplug-error")?.unwrap_or_default();
                ensure!(cause.len() > 10, "it failed because of {cause:?}");
                return Ok(Outcome::Failed);
            }
            _ if Instant::now() > until => bail!(
                "after {step:?} it is in state {state:?}, hotplug-status {status:?}\n{}",
                workload.host.daemon_log()
            ),
            _ => thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[test]
fn disk_connects_or_reports_whichever_syscall_fails() -> Result<()> {
    every_point("a disk", DISK, in_turn, failing_at)
}

#[test]
fn vif_connects_or_reports_whichever_syscall_fails() -> Result<()> {
    every_point("a vif", VIF, in_turn, failing_at)
}

#[test]
fn block_device_connects_or_reports_whichever_syscall_fails() -> Result<()> {
    every_point("a block device", BLOCK_DEVICE, in_turn, failing_at)
}

#[test]
fn routed_vif_connects_or_reports_whichever_syscall_fails() -> Result<()> {
    every_point("a routed vif", ROUTED, in_turn, failing_at)
}

#[test]
fn nat_vif_connects_or_reports_whichever_syscall_fails() -> Result<()> {
    every_point("a vif behind NAT", NAT, in_turn, failing_at)
}

#[test]
fn iscsi_target_connects_or_reports_whichever_syscall_fails() -> Result<()> {
    every_point("an iSCSI target", TARGET, in_turn, failing_at)
}
