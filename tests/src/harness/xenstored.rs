//! Debian's own xenstored, unmodified, with the preloaded library instead of Xen.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::{DebianRoot, Xenbus};
use crate::store::Store;

/// Running xenstored with a directory and socket of its own. Dropping it ends the process.
#[derive(Debug)]
pub struct Xenstored {
    root: DebianRoot,
    traced: bool,
    directory: TempDir,
    process: Child,
}

impl Xenstored {
    /// Starts xenstored, with a store as after the boot of dom0.
    pub fn start(root: &DebianRoot) -> Result<Self> {
        Self::launch(root, false)
    }

    /// Starts xenstored with a trace of all requests, see [`Xenstored::trace`].
    pub fn traced(root: &DebianRoot) -> Result<Self> {
        Self::launch(root, true)
    }

    fn launch(root: &DebianRoot, traced: bool) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("xenstored-").tempdir()?;
        fs::create_dir(directory.path().join("domains"))?;
        let process = spawn(root, directory.path(), traced)?;
        let xenstored = Self {
            root: root.clone(),
            traced,
            directory,
            process,
        };
        xenstored.boot()?;
        Ok(xenstored)
    }

    /// Returns the path of the socket, for `XENSTORED_PATH`.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Opens a new connection.
    pub fn connect(&self) -> Result<Store> {
        Store::connect(&self.socket()).with_context(|| format!("xenstored at {}", self.socket().display()))
    }

    /// Sets the environment of a command so that it uses this store.
    pub fn equip(&self, command: &mut Command) {
        command.env("XENSTORED_PATH", self.socket());
    }

    /// Returns a command that runs a tool of the store, such as `xenstore-ls`.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = self.root.command(&format!("usr/bin/{name}"));
        self.equip(&mut command);
        command
    }

    /// Starts the xenbus of a domain that is not introduced yet.
    pub fn xenbus(&self, domid: u16) -> Result<Xenbus> {
        Xenbus::start(&self.directory.path().join("domains"), domid)
    }

    /// Ends a domain as the hypervisor does: xenstored finds out by itself, and fires `@releaseDomain`.
    pub fn kill_domain(&self, domid: u16) -> Result<()> {
        fs::write(self.domain_file(domid), "dead").context("declaring a domain dead")
    }

    /// Declares a domain alive again.
    pub fn revive_domain(&self, domid: u16) -> Result<()> {
        match fs::remove_file(self.domain_file(domid)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn domain_file(&self, domid: u16) -> PathBuf {
        self.directory.path().join("domains").join(domid.to_string())
    }

    /// Kills xenstored. Its store is lost, as on a real host.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts xenstored again after [`Xenstored::kill`], with an empty store.
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.root, self.directory.path(), self.traced)?;
        self.boot()
    }

    /// Performs a live update, as an upgrade of the package does: a new process of the same program takes over the
    /// store and the connections (docs/designs/xenstore-migration.md).
    pub fn live_update(&self) -> Result<()> {
        let mut store = self.connect()?;
        let program = self.root.xenstored()?.display().to_string();
        store.control(&["live-update", "-f", &program])?;
        let answer = store.control(&["live-update", "-s", "-t", "60"])?;
        ensure!(answer == "OK", "live update: {answer}");
        // The new program has an option that shows the update.
        let line = fs::read_to_string(format!("/proc/{}/cmdline", self.process.id()))?;
        ensure!(
            line.split('\0').any(|word| word == "-U" || word == "--live-update"),
            "xenstored was not updated: {line:?}"
        );
        Ok(())
    }

    /// Stops the process, so that it answers nothing until [`Xenstored::resume`].
    pub fn stall(&self) -> Result<()> {
        Ok(rustix::process::kill_process(
            self.pid()?,
            rustix::process::Signal::STOP,
        )?)
    }

    /// Continues the stopped process.
    pub fn resume(&self) -> Result<()> {
        Ok(rustix::process::kill_process(
            self.pid()?,
            rustix::process::Signal::CONT,
        )?)
    }

    /// Returns the process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn pid(&self) -> Result<rustix::process::Pid> {
        rustix::process::Pid::from_raw(self.process.id().cast_signed()).context("a process has an id")
    }

    /// Returns the trace of requests and answers, if xenstored was started with one.
    pub fn trace(&self) -> Result<String> {
        let trace = fs::read(self.directory.path().join("trace")).context("xenstored's trace")?;
        Ok(String::from_utf8_lossy(&trace).into_owned())
    }

    /// Returns the output of xenstored.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits until xenstored serves, and writes the nodes of `xen-init-dom0`.
    fn boot(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(10);
        let mut store = loop {
            match Store::connect(&self.socket()) {
                Ok(store) => break store,
                Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(2)),
                Err(error) => bail!("xenstored does not serve: {error}\n{}", self.log()),
            }
        };
        store.write("domid", "0")?;
        store.write("name", "Domain-0")?;
        Ok(())
    }
}

impl Drop for Xenstored {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(root: &DebianRoot, directory: &Path, traced: bool) -> Result<Child> {
    // A client could connect to a socket file that is left over after a kill.
    let _ = fs::remove_file(directory.join("socket"));
    let log = File::options().create(true).append(true).open(directory.join("log"))?;
    let mut command = Command::new(root.xenstored()?);
    command
        .arg("--no-fork")
        .env("XENSTORED_RUNDIR", directory)
        .env("XENSTORED_PRELOAD_DOMAINS", directory.join("domains"))
        .env("LD_PRELOAD", root.preload())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    if traced {
        command.arg("--trace-file").arg(directory.join("trace"));
    }
    command.spawn().context("starting xenstored")
}
