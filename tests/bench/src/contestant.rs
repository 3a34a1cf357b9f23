//! Contestants: the original scripts, the daemon, the floor program.

use std::{
    fmt,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::Workload;
use xenplug_tests::harness::{Config, Daemon, Device, build_directory};

/// Contestant of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// `/etc/xen/scripts/block` and `vif-bridge`.
    Script,
    /// `xenplugd`.
    Daemon,
    /// [`xenplug_tests::floor`].
    Floor,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Name::Script => "script",
            Name::Daemon => "xenplugd",
            Name::Floor => "floor",
        })
    }
}

/// Running contestant.
pub(super) enum Contestant {
    /// Script processes that still run. A script is started for each device.
    Script(Vec<Child>),
    /// The daemon.
    Daemon(Box<Daemon>),
    /// The floor program.
    Floor(Child),
}

impl Contestant {
    pub(super) fn start(name: Name, workload: &Workload) -> Result<Self> {
        Ok(match name {
            Name::Script => Self::Script(Vec::new()),
            Name::Daemon => {
                let config = Config::standard(&workload.daemon_directory(), &workload.images())?;
                Self::Daemon(Box::new(Daemon::start(&workload.xenstored().socket(), None, config)?))
            }
            Name::Floor => {
                let mut floor = Command::new(build_directory()?.join("xenplug-floor"))
                    .env("XENSTORED_PATH", workload.xenstored().socket())
                    .stdout(Stdio::piped())
                    .spawn()
                    .context("xenplug-floor")?;
                let output = floor.stdout.take();
                let this = Self::Floor(floor);
                let mut line = String::new();
                BufReader::new(output.context("xenplug-floor has no output")?).read_line(&mut line)?;
                ensure!(line == "ready\n", "xenplug-floor does not serve");
                this
            }
        })
    }

    /// Runs the script as libxl does in state 2. The other contestants watch the state themselves.
    pub(super) fn start_script(&mut self, workload: &Workload, device: &Device) -> Result<()> {
        if let Self::Script(running) = self {
            running.push(workload.scripts().start(device)?);
        }
        Ok(())
    }

    /// Waits until the started scripts end.
    pub(super) fn wait_for_scripts(&mut self) -> Result<()> {
        if let Self::Script(running) = self {
            for mut script in running.drain(..) {
                script.wait()?;
            }
        }
        Ok(())
    }

    /// Returns the contestant if it is the daemon.
    pub(super) fn daemon(&mut self) -> Option<&mut Self> {
        matches!(self, Self::Daemon(_)).then_some(self)
    }

    /// Returns the daemon's process.
    pub(super) fn process(&self) -> Option<&Daemon> {
        if let Self::Daemon(daemon) = self {
            Some(daemon)
        } else {
            None
        }
    }

    /// Returns the daemon's log, or nothing for another contestant.
    pub(super) fn log(&self) -> String {
        self.process().map(|daemon| daemon.log()).unwrap_or_default()
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        let children = match self {
            Self::Script(running) => running.as_mut_slice(),
            Self::Floor(floor) => std::slice::from_mut(floor),
            Self::Daemon(_) => &mut [],
        };
        for child in children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
