//! Real Open vSwitch in a namespace, with a database of its own. It has the userspace datapath, which needs only packet
//! sockets of the kernel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{Namespace, install, namespace::output};

/// Schema of the switch's database.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// Time limit for each daemon of the switch to start.
const START: Duration = Duration::from_secs(20);

/// Running switch. Dropping it ends the processes.
#[derive(Debug)]
pub struct Switch {
    processes: Vec<Child>,
    vsctl: PathBuf,
    directory: TempDir,
}

impl Switch {
    /// Starts a switch without bridges.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("ovs-").tempdir()?;
        let at = |name: &str| directory.path().join(name).display().to_string();
        output(Command::new("ovsdb-tool").args(["create", &at("conf.db"), SCHEMA]))?;

        // A wrapper as an operator might name it, with the switch's socket; here it also records its arguments.
        let vsctl = directory.path().join("ovs-vsctl");
        let text = format!(
            "#!/bin/sh\nfor word; do printf '%s ' \"$word\"; done >> {called}\necho >> {called}\n\
             exec /usr/bin/ovs-vsctl --db=unix:{socket} \"$@\"\n",
            called = at("called"),
            socket = at("db.sock"),
        );
        install(&vsctl, &text)?;
        let mut switch = Self {
            processes: Vec::new(),
            vsctl,
            directory,
        };
        let socket = switch.path("db.sock");
        let daemons = [
            (
                "ovsdb-server",
                vec![switch.path("conf.db"), format!("--remote=punix:{socket}")],
            ),
            ("ovs-vswitchd", vec![format!("unix:{socket}")]),
        ];
        for (name, arguments) in daemons {
            let mut command = namespace.command(name);
            for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
                command.env(variable, switch.directory.path());
            }
            command
                .args(arguments)
                .arg(format!("--pidfile={}", switch.path(&format!("{name}.pid"))))
                .arg(format!("--unixctl={}", switch.path(&format!("{name}.ctl"))))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(switch.path(&format!("{name}.log")))?);
            switch.processes.push(command.spawn().context(name)?);
            switch.wait(name)?;
        }
        switch.tell(&["--no-wait", "init"])?;
        Ok(switch)
    }

    /// Returns the path of the switch's `ovs-vsctl`.
    pub fn vsctl(&self) -> &Path {
        &self.vsctl
    }

    /// Runs `ovs-vsctl` and returns its output.
    pub fn tell(&self, words: &[&str]) -> Result<String> {
        output(Command::new(&self.vsctl).arg("--timeout=10").args(words)).map(|text| text.trim().to_owned())
    }

    /// Creates a bridge with the userspace datapath.
    pub fn bridge(&self, name: &str) -> Result<()> {
        self.tell(&["add-br", name, "--", "set", "bridge", name, "datapath_type=netdev"])
            .map(drop)
    }

    /// Returns the arguments of each call of `ovs-vsctl` since the last time, without those of tests.
    pub fn called(&self) -> Result<Vec<String>> {
        let path = self.path("called");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, "")?;
        let lines = text.lines().map(|line| line.trim_end().to_owned());
        Ok(lines.filter(|line| !line.starts_with("--timeout=10 ")).collect())
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Waits until the daemon that was started last serves.
    fn wait(&mut self, name: &str) -> Result<()> {
        let (served, until) = (self.path(&format!("{name}.ctl")), Instant::now() + START);
        let log = self.path(&format!("{name}.log"));
        while !Path::new(&served).exists() {
            let ended = self
                .processes
                .last_mut()
                .and_then(|process| process.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > until {
                bail!("{name} does not start: {}", fs::read_to_string(log).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for mut process in self.processes.drain(..).rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
