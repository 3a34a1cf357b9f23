//! Kills of either side during an attach or a detach, with a restart.

use std::{fs::File, process::Child, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::attached_below;

use crate::fixture::{Fixture, Requested};

/// Phase of a device in which a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// State 1: the daemon has not begun.
    Wanted,
    /// State 2: both directories exist, and the kernel's backend has not reached state 2.
    Taken,
    /// State 4: the guest uses the device.
    Used,
    /// State 5: the guest has not closed the device.
    Unwanted,
    /// State 5: the device is gone from the store and the journal, and the kernel still has the disk open.
    Lingering,
}

const PHASES: [Phase; 5] = [
    Phase::Wanted,
    Phase::Taken,
    Phase::Used,
    Phase::Unwanted,
    Phase::Lingering,
];

/// Keeps a device in its phase.
#[derive(Default)]
pub(crate) struct Blocker {
    user: Option<File>,
}

impl Fixture {
    /// Brings a disk into a phase, and returns the `xenplug` that still waits.
    fn bring(&mut self, disk: &Requested, phase: Phase) -> Result<(Child, Blocker)> {
        const WAITING: [&str; 3] = ["--wait", "--timeout", "60s"];
        let mut blocker = Blocker::default();
        let child = match phase {
            Phase::Wanted => {
                self.host.daemon_mut()?.kill()?;
                let child = self.spawn("attach", disk, &WAITING)?;
                self.expect(disk, "1")?;
                child
            }
            Phase::Taken => {
                self.host.stop_kernel();
                let child = self.spawn("attach", disk, &WAITING)?;
                self.expect(disk, "2")?;
                child
            }
            Phase::Used => {
                let mut child = self.spawn("attach", disk, &WAITING)?;
                if let Err(error) = self.expect(disk, "4") {
                    child.kill()?;
                    let message = child.wait_with_output()?.stderr;
                    return Err(error.context(String::from_utf8_lossy(&message).into_owned()));
                }
                child
            }
            Phase::Unwanted => {
                self.attach(disk)?;
                self.expect(disk, "4")?;
                self.host.stop_kernel();
                let child = self.spawn("detach", disk, &WAITING)?;
                self.host.expect_state(&disk.device, "5")?;
                child
            }
            Phase::Lingering => {
                self.attach(disk)?;
                self.expect(disk, "4")?;
                blocker.user = Some(File::open(&attached_below(self.host.directory())?[0].device)?);
                let child = self.spawn("detach", disk, &WAITING)?;
                let gone = self
                    .host
                    .connect()?
                    .wait(&disk.device.backend(), crate::fixture::TIMEOUT, |one| one.is_none())?;
                ensure!(gone.is_ok(), "the backend stays");
                child
            }
        };
        Ok((child, blocker))
    }

    /// Lets the device leave its phase.
    pub(crate) fn let_go_on(&mut self, phase: Phase, blocker: Blocker) -> Result<()> {
        drop(blocker);
        if matches!(phase, Phase::Taken | Phase::Unwanted) {
            self.host.start_kernel()?;
        }
        Ok(())
    }

    /// Detaches the disk if it exists, and checks that nothing is left.
    fn end(&self, disk: &Requested) -> Result<()> {
        if self.state(disk)?.is_some() {
            self.detach(disk)?;
        }
        assert_eq!(attached_below(self.host.directory())?, []);
        Ok(())
    }
}

/// Runs a fault in each phase of a disk. Afterwards the disk can be detached, and nothing is left.
pub(crate) fn in_each_phase(
    happens: impl Fn(&mut Fixture, &Requested, Phase, Child, Blocker) -> Result<()>,
) -> Result<()> {
    let mut fixture = Fixture::new()?;
    let baseline = fixture.host.baseline()?;
    let disk = fixture.disk("a.img")?;
    for phase in PHASES {
        let went = (|| {
            let (child, blocker) = fixture.bring(&disk, phase)?;
            happens(&mut fixture, &disk, phase, child, blocker)?;
            fixture.end(&disk)
        })();
        went.with_context(|| format!("{phase:?}{}", fixture.host.daemon_log()))?;
    }
    baseline.assert_same(&fixture.host)
}

#[test]
fn daemon_crash_during_attach_or_detach_is_continued() -> Result<()> {
    in_each_phase(|fixture, _, phase, child, blocker| {
        if phase != Phase::Wanted {
            fixture.host.daemon_mut()?.kill()?;
        }
        fixture.host.daemon_mut()?.restart()?;
        fixture.let_go_on(phase, blocker)?;
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    })
}

#[test]
fn toolstack_crash_during_attach_or_detach_is_continued() -> Result<()> {
    in_each_phase(|fixture, _, phase, mut child, blocker| {
        child.kill()?;
        child.wait()?;
        if phase == Phase::Wanted {
            fixture.host.daemon_mut()?.restart()?;
        }
        fixture.let_go_on(phase, blocker)?;
        Ok(())
    })
}

#[test]
fn daemon_and_toolstack_killed_at_any_time_finish_their_work() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let baseline = fixture.host.baseline()?;
    let (disk, vif) = (fixture.disk("a.img")?, fixture.vif());
    for round in 0..8 {
        let pause = Duration::from_millis(4 * round);
        for what in ["attach", "detach"] {
            let children =
                [&disk, &vif].map(|requested| fixture.spawn(what, requested, &["--wait", "--timeout", "60s"]));
            thread::sleep(pause);
            fixture.host.daemon_mut()?.kill()?;
            fixture.host.daemon_mut()?.restart()?;
            for child in children {
                let done = child?.wait_with_output()?;
                ensure!(
                    done.status.success(),
                    "{what} with a daemon that died after {pause:?}: {}{}",
                    String::from_utf8_lossy(&done.stderr),
                    fixture.host.daemon_log()
                );
            }
        }
        assert_eq!(attached_below(fixture.host.directory())?, []);
        assert_eq!(fixture.host.namespace().ports("xenbr0")?, [""; 0]);
    }
    baseline.assert_same(&fixture.host)
}
