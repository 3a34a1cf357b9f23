//! Either side is killed in the middle of an attach or a detach, and started again.

use std::{fs::File, process::Child, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::attached_below;

use crate::stage::{Asked, Stage};

/// How far a device is when somebody dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// 1: nobody has taken it up.
    Wanted,
    /// 2: both directories are there, and the kernel's backend has not come to what a handler waits for.
    Taken,
    /// 4: the guest uses it.
    Used,
    /// 5: the guest does not let go.
    Unwanted,
    /// 5: nothing of it is in the store or the journal, and the kernel has not let go.
    Lingering,
}

const MOMENTS: [Moment; 5] = [
    Moment::Wanted,
    Moment::Taken,
    Moment::Used,
    Moment::Unwanted,
    Moment::Lingering,
];

/// What keeps a device at its moment.
#[derive(Default)]
pub(crate) struct Kept {
    user: Option<File>,
}

impl Stage {
    /// Brings a disk to a moment, with whoever asked still waiting.
    fn bring(&mut self, disk: &Asked, moment: Moment) -> Result<(Child, Kept)> {
        const WAITING: [&str; 3] = ["--wait", "--timeout", "60s"];
        let mut kept = Kept::default();
        let child = match moment {
            Moment::Wanted => {
                self.machine.daemon_mut()?.kill()?;
                let child = self.spawn("attach", disk, &WAITING)?;
                self.expect(disk, "1")?;
                child
            }
            Moment::Taken => {
                self.machine.stop_kernel();
                let child = self.spawn("attach", disk, &WAITING)?;
                self.expect(disk, "2")?;
                child
            }
            Moment::Used => {
                let mut child = self.spawn("attach", disk, &WAITING)?;
                if let Err(error) = self.expect(disk, "4") {
                    child.kill()?;
                    let said = child.wait_with_output()?.stderr;
                    return Err(error.context(String::from_utf8_lossy(&said).into_owned()));
                }
                child
            }
            Moment::Unwanted => {
                self.attach(disk)?;
                self.expect(disk, "4")?;
                self.machine.stop_kernel();
                let child = self.spawn("detach", disk, &WAITING)?;
                self.machine.expect_state(&disk.device, "5")?;
                child
            }
            Moment::Lingering => {
                self.attach(disk)?;
                self.expect(disk, "4")?;
                kept.user = Some(File::open(&attached_below(self.machine.directory())?[0].device)?);
                let child = self.spawn("detach", disk, &WAITING)?;
                let gone = self
                    .machine
                    .connect()?
                    .wait(&disk.device.backend(), crate::stage::PATIENCE, |one| one.is_none())?;
                ensure!(gone.is_ok(), "the backend stays");
                child
            }
        };
        Ok((child, kept))
    }

    /// Lets the device go on from there.
    pub(crate) fn let_go_on(&mut self, moment: Moment, kept: Kept) -> Result<()> {
        drop(kept);
        if matches!(moment, Moment::Taken | Moment::Unwanted) {
            self.machine.start_kernel()?;
        }
        Ok(())
    }

    /// Takes down what is there, and finds nothing left.
    fn end(&self, disk: &Asked) -> Result<()> {
        if self.state(disk)?.is_some() {
            self.detach(disk)?;
        }
        assert_eq!(attached_below(self.machine.directory())?, []);
        Ok(())
    }
}

/// Does something to a disk at each of the moments. Afterwards it can be taken down, and nothing is left.
pub(crate) fn at_each_moment(happens: impl Fn(&mut Stage, &Asked, Moment, Child, Kept) -> Result<()>) -> Result<()> {
    let mut stage = Stage::new()?;
    let baseline = stage.machine.baseline()?;
    let disk = stage.disk("a.img")?;
    for moment in MOMENTS {
        let went = (|| {
            let (child, kept) = stage.bring(&disk, moment)?;
            happens(&mut stage, &disk, moment, child, kept)?;
            stage.end(&disk)
        })();
        went.with_context(|| format!("{moment:?}{}", stage.machine.daemon_log()))?;
    }
    baseline.assert_same(&stage.machine)
}

#[test]
fn daemon_crash_during_attach_or_detach_is_continued() -> Result<()> {
    at_each_moment(|stage, _, moment, child, kept| {
        if moment != Moment::Wanted {
            stage.machine.daemon_mut()?.kill()?;
        }
        stage.machine.daemon_mut()?.restart()?;
        stage.let_go_on(moment, kept)?;
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    })
}

#[test]
fn toolstack_crash_during_attach_or_detach_is_continued() -> Result<()> {
    at_each_moment(|stage, _, moment, mut child, kept| {
        child.kill()?;
        child.wait()?;
        if moment == Moment::Wanted {
            stage.machine.daemon_mut()?.restart()?;
        }
        stage.let_go_on(moment, kept)?;
        Ok(())
    })
}

#[test]
fn daemon_and_toolstack_killed_at_any_time_finish_their_work() -> Result<()> {
    let mut stage = Stage::new()?;
    let baseline = stage.machine.baseline()?;
    let (disk, card) = (stage.disk("a.img")?, stage.card());
    for round in 0..8 {
        let pause = Duration::from_millis(4 * round);
        for what in ["attach", "detach"] {
            let children = [&disk, &card].map(|asked| stage.spawn(what, asked, &["--wait", "--timeout", "60s"]));
            thread::sleep(pause);
            stage.machine.daemon_mut()?.kill()?;
            stage.machine.daemon_mut()?.restart()?;
            for child in children {
                let done = child?.wait_with_output()?;
                ensure!(
                    done.status.success(),
                    "{what} with a daemon that died after {pause:?}: {}{}",
                    String::from_utf8_lossy(&done.stderr),
                    stage.machine.daemon_log()
                );
            }
        }
        assert_eq!(attached_below(stage.machine.directory())?, []);
        assert_eq!(stage.machine.namespace().ports("xenbr0")?, [""; 0]);
    }
    baseline.assert_same(&stage.machine)
}
