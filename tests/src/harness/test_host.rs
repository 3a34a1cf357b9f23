//! A driver domain in one value: store, namespace, players and daemon, that a test starts and forgets.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::{
    Baseline, Config, Daemon, DebianRoot, Device, Disk, Helper, Kernel, Namespace, Nodes, Scope, Scripts, Toolstack,
    Vif, Xenbus, Xenstored, build_directory, detach_below,
};
use crate::store::Store;

/// How long a device may take to come to what a test expects.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many lines of the daemon's log a message has at most.
const LOG: usize = 40;

/// A driver domain: real xenstored, a namespace with the bridge `xenbr0`, the played kernel and toolstack, and when
/// started the daemon. The fields are dropped in this order.
///
/// Its backends are in domain 0, and its daemon may do everything in the store, unless it is [`TestHost::apart`].
#[derive(Debug)]
pub struct TestHost {
    /// The domain of the backends.
    domain: u16,
    daemon: Option<Daemon>,
    xenbus: Option<Xenbus>,
    kernel: Option<Kernel>,
    toolstack: Toolstack,
    namespace: Arc<Namespace>,
    xenstored: Xenstored,
    helpers: Vec<Helper>,
    directory: TempDir,
    root: DebianRoot,
}

impl TestHost {
    /// All but the daemon.
    pub fn new() -> Result<Self> {
        Self::of(0)
    }

    /// All but the daemon, with the backends in a domain of their own, which may do in the store what a driver domain of
    /// libxl's may, and is prepared to be asked.
    pub fn apart() -> Result<Self> {
        let machine = Self::of(1)?;
        let done = machine.xenplug(&["prepare", "1"])?.output()?;
        ensure!(done.status.success(), "xenplug prepare: {done:?}");
        Ok(machine)
    }

    fn of(domain: u16) -> Result<Self> {
        let root = DebianRoot::find()?;
        let directory = tempfile::Builder::new().prefix("xenplug-").tempdir()?;
        fs::create_dir(directory.path().join("images"))?;
        let xenstored = Xenstored::start(&root)?;
        let namespace = Arc::new(Namespace::new()?);
        namespace.bridge("xenbr0")?;
        let kernel = Some(Kernel::start(&xenstored.socket(), domain, Some(&namespace))?);
        let mut toolstack = Toolstack::new(xenstored.connect()?);
        let mut xenbus = None;
        if domain != 0 {
            xenbus = Some(xenstored.xenbus(domain)?);
            toolstack.build(domain)?;
        }
        Ok(Self {
            domain,
            daemon: None,
            xenbus,
            kernel,
            toolstack,
            namespace,
            xenstored,
            helpers: Vec::new(),
            directory,
            root,
        })
    }

    /// All, with the daemon in its standard configuration.
    pub fn with_daemon() -> Result<Self> {
        let mut machine = Self::new()?;
        machine.start_daemon(machine.config()?)?;
        Ok(machine)
    }

    /// The standard configuration for this machine.
    pub fn config(&self) -> Result<Config> {
        Config::standard(self.directory.path(), &self.images())
    }

    /// Starts the daemon, in place of the one that may run.
    pub fn start_daemon(&mut self, config: Config) -> Result<()> {
        self.daemon = None;
        self.daemon = Some(Daemon::start(&self.store(), Some(&self.namespace), config)?);
        Ok(())
    }

    /// The store, as the domain of the backends sees it: for one at a time, if that is a domain of its own.
    pub fn store(&self) -> PathBuf {
        self.xenbus
            .as_ref()
            .map_or_else(|| self.xenstored.socket(), Xenbus::socket)
    }

    /// The xenbus of the domain of the backends, if that is a domain of its own.
    pub fn xenbus(&self) -> Result<&Xenbus> {
        self.xenbus.as_ref().context("the backends are in domain 0")
    }

    /// `xenplug` in dom0.
    pub fn xenplug(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(build_directory()?.join("xenplug"));
        command
            .args(arguments)
            .env("XENSTORED_PATH", self.xenstored.socket())
            .env("XENPLUG_CONFIG", self.directory.path().join("xenplugd.toml"))
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Starts the daemon where it is to refuse, and gives what it said.
    pub fn refused_daemon(&self, config: &Config) -> Result<std::process::Output> {
        Daemon::refused(&self.xenstored.socket(), Some(&self.namespace), config)
    }

    /// The daemon, if it was started.
    pub fn daemon(&self) -> Option<&Daemon> {
        self.daemon.as_ref()
    }

    /// The daemon, to end and restart it.
    pub fn daemon_mut(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().context("this machine has no daemon")
    }

    /// The daemon's control socket.
    pub fn control_socket(&self) -> Result<PathBuf> {
        let daemon = self.daemon.as_ref().context("this machine has no daemon")?;
        Ok(daemon.config().run_directory().join("control.sock"))
    }

    /// The end of the daemon's log, for a message.
    pub fn daemon_log(&self) -> String {
        let Some(daemon) = &self.daemon else {
            return String::new();
        };
        let log = daemon.log();
        let end = log.lines().rev().take(LOG).collect::<Vec<_>>();
        let lines = end.into_iter().rev().map(|line| format!("\n{line}"));
        format!("--- the daemon's log{}", lines.collect::<String>())
    }

    /// Stops the played kernel, for a test that writes the backends' states itself.
    pub fn stop_kernel(&mut self) {
        self.kernel = None;
    }

    /// Starts it again. What the one before held it let go.
    pub fn start_kernel(&mut self) -> Result<()> {
        self.kernel = Some(Kernel::start(
            &self.xenstored.socket(),
            self.domain,
            Some(&self.namespace),
        )?);
        Ok(())
    }

    /// The played toolstack.
    pub fn toolstack(&mut self) -> &mut Toolstack {
        &mut self.toolstack
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The store.
    pub fn xenstored(&self) -> &Xenstored {
        &self.xenstored
    }

    /// The store, to end and restart it.
    pub fn xenstored_mut(&mut self) -> &mut Xenstored {
        &mut self.xenstored
    }

    /// Gives the toolstack a new connection, after the store was restarted.
    pub fn reconnect(&mut self) -> Result<()> {
        self.toolstack = Toolstack::new(self.xenstored.connect()?);
        Ok(())
    }

    /// A new connection to the store.
    pub fn connect(&self) -> Result<Store> {
        self.xenstored.connect()
    }

    /// The root file system that the test runs in.
    pub fn debian(&self) -> &DebianRoot {
        &self.root
    }

    /// Keeps a helper, and what that makes, until its own end.
    pub fn keep(&mut self, helper: Helper) {
        self.helpers.push(helper);
    }

    /// The original scripts, on this machine.
    pub fn scripts(&self) -> Scripts<'_> {
        Scripts {
            root: &self.root,
            xenstored: &self.xenstored,
            namespace: Some(&self.namespace),
        }
    }

    /// A directory of this machine's own, removed at its end.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The directory of disk images, which the standard configuration grants.
    pub fn images(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    /// Makes a sparse disk image of so many MiB.
    pub fn image(&self, name: &str, mebibytes: u64) -> Result<PathBuf> {
        let path = self.images().join(name);
        File::create(&path)?.set_len(mebibytes << 20)?;
        Ok(path)
    }

    /// Attaches a disk on a new image to a guest, which is built if it is not there.
    pub fn attach_disk(&mut self, guest: u16, index: u32) -> Result<Device> {
        let image = self.image(&format!("{guest}-{index}.img"), 4)?;
        let device = Device::disk(guest, index);
        self.attach(&device, &Disk::on(&image))?;
        Ok(device)
    }

    /// Attaches a vif on `xenbr0` to a guest, which is built if it is not there.
    pub fn attach_vif(&mut self, guest: u16, index: u32) -> Result<Device> {
        let device = Device::vif(guest, index);
        self.attach(&device, &Vif::on("xenbr0"))?;
        Ok(device)
    }

    /// Attaches a device to a guest, which is built if it is not there.
    pub fn attach(&mut self, device: &Device, nodes: &Nodes) -> Result<()> {
        if !self.toolstack.store().is_introduced(device.frontend)? {
            self.toolstack.build(device.frontend)?;
        }
        self.toolstack.attach(device, nodes)
    }

    /// Waits until a device is connected: published, and the played kernel in state 4.
    pub fn expect_connected(&self, device: &Device) -> Result<()> {
        self.expect_status(device, "connected")?;
        self.expect_state(device, "4")
    }

    /// Waits until a device has failed with a status and a `hotplug-error` that says all of these.
    pub fn expect_failure(&self, device: &Device, status: &str, words: &[&str]) -> Result<()> {
        self.expect_status(device, status)?;
        let error = self.node(device, "hotplug-error")?.unwrap_or_default();
        match words.iter().find(|word| !error.contains(**word)) {
            Some(word) => bail!("hotplug-error is {error:?}, without {word:?}"),
            None => Ok(()),
        }
    }

    /// Detaches a device, and waits for its end as libxl does: at most 10 s for the backend to go.
    pub fn detach(&mut self, device: &Device) -> Result<()> {
        self.toolstack.detach(device)?;
        self.toolstack
            .finish(device, Duration::from_secs(10))
            .with_context(|| self.daemon_log())
    }

    /// Detaches what a guest has and removes the guest.
    pub fn end_guest(&mut self, guest: u16, devices: &[Device]) -> Result<()> {
        for device in devices {
            self.toolstack.detach(device)?;
        }
        for device in devices {
            self.toolstack
                .finish(device, Duration::from_secs(10))
                .with_context(|| self.daemon_log())?;
        }
        self.toolstack.bury(guest)
    }

    /// What the machine has now.
    pub fn baseline(&self) -> Result<Baseline> {
        Baseline::of(&self.scope())
    }

    /// Where to look for what the machine has.
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            directory: self.directory.path(),
            socket: self.xenstored.socket(),
            domain: self.domain,
            namespace: Some(&self.namespace),
            in_debian: true,
            daemon: self.daemon.as_ref(),
        }
    }

    /// Waits until a device's `hotplug-status` is as expected. Another outcome or none is an error that says why.
    pub fn expect_status(&self, device: &Device, status: &str) -> Result<()> {
        self.expect_node(device, "hotplug-status", status)
    }

    /// Waits until a backend is in a state.
    pub fn expect_state(&self, device: &Device, state: &str) -> Result<()> {
        self.expect_node(device, "state", state)
    }

    /// Waits until a node of a backend has a value.
    pub fn expect_node(&self, device: &Device, name: &str, expected: &str) -> Result<()> {
        let mut store = self.connect()?;
        let path = format!("{}/{name}", device.backend());
        if let Err(found) = store.wait(&path, PATIENCE, |value| value == Some(expected))? {
            let cause = store.find(&format!("{}/hotplug-error", device.backend()))?;
            bail!(
                "{path} is {found:?} and not {expected:?}; hotplug-error: {cause:?}\n{}",
                self.daemon_log()
            );
        }
        Ok(())
    }

    /// The value of a node of a backend.
    pub fn node(&self, device: &Device, name: &str) -> Result<Option<String>> {
        Ok(self.connect()?.find(&format!("{}/{name}", device.backend()))?)
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        // Those who hold loop devices first; then what nobody lets go of by itself.
        self.daemon = None;
        self.kernel = None;
        let _ = detach_below(self.directory.path());
    }
}
