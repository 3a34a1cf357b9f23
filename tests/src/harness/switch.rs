//! A real Open vSwitch with its userspace datapath, which needs nothing of the kernel but packet sockets: in a namespace,
//! with a database of its own.

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

/// The tables of its database.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// How long its parts may take to start.
const START: Duration = Duration::from_secs(20);

/// A switch. It ends when this is dropped.
#[derive(Debug)]
pub struct Switch {
    processes: Vec<Child>,
    vsctl: PathBuf,
    directory: TempDir,
}

impl Switch {
    /// Starts one without bridges.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("ovs-").tempdir()?;
        let at = |name: &str| directory.path().join(name).display().to_string();
        output(Command::new("ovsdb-tool").args(["create", &at("conf.db"), SCHEMA]))?;

        // As an operator might name it: a program that knows where the switch is, and here also notes what it is told.
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

    /// The helper that speaks to it: `ovs-vsctl`.
    pub fn vsctl(&self) -> &Path {
        &self.vsctl
    }

    /// Speaks to it, and gives what it said.
    pub fn tell(&self, words: &[&str]) -> Result<String> {
        output(Command::new(&self.vsctl).arg("--timeout=10").args(words)).map(|said| said.trim().to_owned())
    }

    /// Makes a bridge with the userspace datapath.
    pub fn bridge(&self, name: &str) -> Result<()> {
        self.tell(&["add-br", name, "--", "set", "bridge", name, "datapath_type=netdev"])
            .map(drop)
    }

    /// What its helper was called with since the last time, a line each; what tests said to it is left out.
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

    /// Waits until a daemon serves.
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
