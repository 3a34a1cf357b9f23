//! Debian's own xenstored, unmodified, with the preloaded library in the place of Xen.

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

/// A running xenstored with a directory and socket of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct Xenstored {
    root: DebianRoot,
    traced: bool,
    directory: TempDir,
    process: Child,
}

impl Xenstored {
    /// Starts one whose store is as after the boot of dom0.
    pub fn start(root: &DebianRoot) -> Result<Self> {
        Self::launch(root, false)
    }

    /// The same, and it notes all that it is asked in [`Xenstored::trace`].
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

    /// The socket, for `XENSTORED_PATH`.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// A new connection.
    pub fn connect(&self) -> Result<Store> {
        Store::connect(&self.socket()).with_context(|| format!("xenstored at {}", self.socket().display()))
    }

    /// Lets a command find this store.
    pub fn equip(&self, command: &mut Command) {
        command.env("XENSTORED_PATH", self.socket());
    }

    /// One of the store's tools, such as `xenstore-ls`.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = self.root.command(&format!("usr/bin/{name}"));
        self.equip(&mut command);
        command
    }

    /// The xenbus of a domain that is not introduced yet.
    pub fn xenbus(&self, domid: u16) -> Result<Xenbus> {
        Xenbus::start(&self.directory.path().join("domains"), domid)
    }

    /// Ends a domain as the hypervisor would: xenstored finds out by itself, and tells with `@releaseDomain`.
    pub fn kill_domain(&self, domid: u16) -> Result<()> {
        fs::write(self.domain_file(domid), "dead").context("declaring a domain dead")
    }

    /// Lets a domain of this number live (again).
    pub fn revive_domain(&self, domid: u16) -> Result<()> {
        match fs::remove_file(self.domain_file(domid)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn domain_file(&self, domid: u16) -> PathBuf {
        self.directory.path().join("domains").join(domid.to_string())
    }

    /// Kills it without warning. Its store is lost with it, as it is on a real machine.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again after [`Xenstored::kill`], with an empty store.
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.root, self.directory.path(), self.traced)?;
        self.boot()
    }

    /// Has it replaced by a new one of the same program that goes on with its store and its connections, as when its
    /// package is upgraded (docs/designs/xenstore-migration.md).
    pub fn live_update(&self) -> Result<()> {
        let mut store = self.connect()?;
        let program = self.root.xenstored()?.display().to_string();
        store.control(&["live-update", "-f", &program])?;
        let answer = store.control(&["live-update", "-s", "-t", "60"])?;
        ensure!(answer == "OK", "live update: {answer}");
        // The program that was started in its place is told so.
        let line = fs::read_to_string(format!("/proc/{}/cmdline", self.process.id()))?;
        ensure!(
            line.split('\0').any(|word| word == "-U" || word == "--live-update"),
            "it was not updated: {line:?}"
        );
        Ok(())
    }

    /// Stops it from answering, for as long as it takes until [`Xenstored::resume`].
    pub fn stall(&self) -> Result<()> {
        Ok(rustix::process::kill_process(
            self.pid()?,
            rustix::process::Signal::STOP,
        )?)
    }

    /// Lets it answer again.
    pub fn resume(&self) -> Result<()> {
        Ok(rustix::process::kill_process(
            self.pid()?,
            rustix::process::Signal::CONT,
        )?)
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn pid(&self) -> Result<rustix::process::Pid> {
        rustix::process::Pid::from_raw(self.process.id().cast_signed()).context("a process has an id")
    }

    /// What it was asked and has answered, if it was started to note that.
    pub fn trace(&self) -> Result<String> {
        let trace = fs::read(self.directory.path().join("trace")).context("xenstored's trace")?;
        Ok(String::from_utf8_lossy(&trace).into_owned())
    }

    /// What xenstored has complained about.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits until it serves, and writes what `xen-init-dom0` writes.
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
    // A socket file that outlived a kill would let a client connect to nobody.
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
