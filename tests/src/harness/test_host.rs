//! Driver domain for one test: store, namespace, players and daemon in one value.

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

/// Time limit for a device to reach the state that a test expects.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Largest number of lines of the daemon's log in a message.
const LOG: usize = 40;

/// Driver domain: real xenstored, a namespace with the bridge `xenbr0`, the played kernel and toolstack, and the daemon
/// once it is started. The fields are dropped in this order.
///
/// The backends are in domain 0, and the daemon may do everything in the store, unless the host is [`TestHost::apart`].
#[derive(Debug)]
pub struct TestHost {
    /// Domain of the backends.
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
    /// Starts a host without the daemon.
    pub fn new() -> Result<Self> {
        Self::of(0)
    }

    /// Starts a host without the daemon, with the backends in a domain of their own. That domain has the rights in the
    /// store that libxl gives to a driver domain, and is prepared for device requests.
    pub fn apart() -> Result<Self> {
        let host = Self::of(1)?;
        let done = host.xenplug(&["prepare", "1"])?.output()?;
        ensure!(done.status.success(), "xenplug prepare: {done:?}");
        Ok(host)
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

    /// Starts a host with the daemon in its standard configuration.
    pub fn with_daemon() -> Result<Self> {
        let mut host = Self::new()?;
        host.start_daemon(host.config()?)?;
        Ok(host)
    }

    /// Returns the standard configuration for this host.
    pub fn config(&self) -> Result<Config> {
        Config::standard(self.directory.path(), &self.images())
    }

    /// Starts the daemon, and ends the one that may run.
    pub fn start_daemon(&mut self, config: Config) -> Result<()> {
        self.daemon = None;
        self.daemon = Some(Daemon::start(&self.store(), Some(&self.namespace), config)?);
        Ok(())
    }

    /// Returns the socket of the store for the domain of the backends. A domain of its own has one client at a time.
    pub fn store(&self) -> PathBuf {
        self.xenbus
            .as_ref()
            .map_or_else(|| self.xenstored.socket(), Xenbus::socket)
    }

    /// Returns the xenbus of the domain of the backends, unless that is domain 0.
    pub fn xenbus(&self) -> Result<&Xenbus> {
        self.xenbus.as_ref().context("the backends are in domain 0")
    }

    /// Returns a command that runs `xenplug` in dom0.
    pub fn xenplug(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(build_directory()?.join("xenplug"));
        command
            .args(arguments)
            .env("XENSTORED_PATH", self.xenstored.socket())
            .env("XENPLUG_CONFIG", self.directory.path().join("xenplugd.toml"))
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Starts the daemon where it has to refuse, and returns its output.
    pub fn refused_daemon(&self, config: &Config) -> Result<std::process::Output> {
        Daemon::refused(&self.xenstored.socket(), Some(&self.namespace), config)
    }

    /// Returns the daemon, if it was started.
    pub fn daemon(&self) -> Option<&Daemon> {
        self.daemon.as_ref()
    }

    /// Returns the daemon, to end and restart it.
    pub fn daemon_mut(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().context("the host has no daemon")
    }

    /// Returns the path of the daemon's control socket.
    pub fn control_socket(&self) -> Result<PathBuf> {
        let daemon = self.daemon.as_ref().context("the host has no daemon")?;
        Ok(daemon.config().run_directory().join("control.sock"))
    }

    /// Returns the end of the daemon's log, for a message.
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

    /// Starts the played kernel again. The one before has released everything.
    pub fn start_kernel(&mut self) -> Result<()> {
        self.kernel = Some(Kernel::start(
            &self.xenstored.socket(),
            self.domain,
            Some(&self.namespace),
        )?);
        Ok(())
    }

    /// Returns the played toolstack.
    pub fn toolstack(&mut self) -> &mut Toolstack {
        &mut self.toolstack
    }

    /// Returns the host's network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns xenstored.
    pub fn xenstored(&self) -> &Xenstored {
        &self.xenstored
    }

    /// Returns xenstored, to end and restart it.
    pub fn xenstored_mut(&mut self) -> &mut Xenstored {
        &mut self.xenstored
    }

    /// Gives the toolstack a new connection, after a restart of xenstored.
    pub fn reconnect(&mut self) -> Result<()> {
        self.toolstack = Toolstack::new(self.xenstored.connect()?);
        Ok(())
    }

    /// Opens a new connection to the store.
    pub fn connect(&self) -> Result<Store> {
        self.xenstored.connect()
    }

    /// Returns the root file system that the test runs in.
    pub fn debian(&self) -> &DebianRoot {
        &self.root
    }

    /// Stores a fake helper until the end of the host, so that its devices exist as long.
    pub fn keep(&mut self, helper: Helper) {
        self.helpers.push(helper);
    }

    /// Returns the original scripts, on this host.
    pub fn scripts(&self) -> Scripts<'_> {
        Scripts {
            root: &self.root,
            xenstored: &self.xenstored,
            namespace: Some(&self.namespace),
        }
    }

    /// Returns the host's own directory, removed at its end.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the directory of disk images, which the standard configuration grants.
    pub fn images(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    /// Creates a sparse disk image of this size in MiB.
    pub fn image(&self, name: &str, mebibytes: u64) -> Result<PathBuf> {
        let path = self.images().join(name);
        File::create(&path)?.set_len(mebibytes << 20)?;
        Ok(path)
    }

    /// Attaches a disk on a new image to a guest, and builds the guest if it is absent.
    pub fn attach_disk(&mut self, guest: u16, index: u32) -> Result<Device> {
        let image = self.image(&format!("{guest}-{index}.img"), 4)?;
        let device = Device::disk(guest, index);
        self.attach(&device, &Disk::on(&image))?;
        Ok(device)
    }

    /// Attaches a vif on `xenbr0` to a guest, and builds the guest if it is absent.
    pub fn attach_vif(&mut self, guest: u16, index: u32) -> Result<Device> {
        let device = Device::vif(guest, index);
        self.attach(&device, &Vif::on("xenbr0"))?;
        Ok(device)
    }

    /// Attaches a device to a guest, and builds the guest if it is absent.
    pub fn attach(&mut self, device: &Device, nodes: &Nodes) -> Result<()> {
        if !self.toolstack.store().is_introduced(device.frontend)? {
            self.toolstack.build(device.frontend)?;
        }
        self.toolstack.attach(device, nodes)
    }

    /// Waits until a device is published and the played kernel is in state 4.
    pub fn expect_connected(&self, device: &Device) -> Result<()> {
        self.expect_status(device, "connected")?;
        self.expect_state(device, "4")
    }

    /// Waits until a device has failed with a status and a `hotplug-error` that contains all of these words.
    pub fn expect_failure(&self, device: &Device, status: &str, words: &[&str]) -> Result<()> {
        self.expect_status(device, status)?;
        let error = self.node(device, "hotplug-error")?.unwrap_or_default();
        match words.iter().find(|word| !error.contains(**word)) {
            Some(word) => bail!("hotplug-error is {error:?}, without {word:?}"),
            None => Ok(()),
        }
    }

    /// Detaches a device, and waits as libxl does: at most 10 s until the backend directory is gone.
    pub fn detach(&mut self, device: &Device) -> Result<()> {
        self.toolstack.detach(device)?;
        self.toolstack
            .finish(device, Duration::from_secs(10))
            .with_context(|| self.daemon_log())
    }

    /// Detaches a guest's devices and removes the guest.
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

    /// Takes a baseline of the host.
    pub fn baseline(&self) -> Result<Baseline> {
        Baseline::of(&self.scope())
    }

    /// Returns the parts of the host that a baseline covers.
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

    /// Waits until a device's `hotplug-status` is as expected. An error names the cause of another outcome.
    pub fn expect_status(&self, device: &Device, status: &str) -> Result<()> {
        self.expect_node(device, "hotplug-status", status)
    }

    /// Waits until a backend is in a state.
    pub fn expect_state(&self, device: &Device, state: &str) -> Result<()> {
        self.expect_node(device, "state", state)
    }

    /// Waits until a node in a backend directory has a value.
    pub fn expect_node(&self, device: &Device, name: &str, expected: &str) -> Result<()> {
        let mut store = self.connect()?;
        let path = format!("{}/{name}", device.backend());
        if let Err(found) = store.wait(&path, TIMEOUT, |value| value == Some(expected))? {
            let cause = store.find(&format!("{}/hotplug-error", device.backend()))?;
            bail!(
                "{path} is {found:?} and not {expected:?}; hotplug-error: {cause:?}\n{}",
                self.daemon_log()
            );
        }
        Ok(())
    }

    /// Returns the value of a node in a backend directory.
    pub fn node(&self, device: &Device, name: &str) -> Result<Option<String>> {
        Ok(self.connect()?.find(&format!("{}/{name}", device.backend()))?)
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        // The daemon and the kernel hold loop devices; the rest would stay attached.
        self.daemon = None;
        self.kernel = None;
        let _ = detach_below(self.directory.path());
    }
}
