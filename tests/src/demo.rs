//! Demo: attaches and detaches a disk and a vif step by step, and checks that nothing is left over.
//!
//! The daemon and its plugins are real. With root the loop device, the bridge and the link are real too, in a private
//! network namespace. The store is the embedded one; toolstack, kernel and guest are played.

mod timeline;

use std::{
    fmt,
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use timeline::Timeline;
use xenplug_store_server::{Options, Server};

use crate::{
    harness::{Baseline, Config, Daemon, Device, Disk, Kernel, Namespace, Scope, Toolstack, Vif, attached_below},
    store::Store,
};

const GUEST: u16 = 3;
const BRIDGE: &str = "xenbr0";

/// Host of the demo.
#[derive(Debug)]
pub enum DemoHost {
    /// This host, with a private network namespace.
    Real(Arc<Namespace>),
    /// A host in the daemon's memory, and why it is not this host.
    Simulated(String),
}

impl DemoHost {
    /// Returns this host if it has root and namespaces, else a simulated one.
    pub fn find(simulated: bool) -> Self {
        if simulated {
            return Self::Simulated("as asked".to_owned());
        }
        if !rustix::process::geteuid().is_root() {
            return Self::Simulated("loop devices and network namespaces take root".to_owned());
        }
        match Namespace::new() {
            Ok(namespace) => Self::Real(Arc::new(namespace)),
            Err(error) => Self::Simulated(format!("{error:#}")),
        }
    }

    fn namespace(&self) -> Option<&Arc<Namespace>> {
        match self {
            Self::Real(namespace) => Some(namespace),
            Self::Simulated(_) => None,
        }
    }
}

impl fmt::Display for DemoHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real(_) => write!(f, "a real loop device, a real bridge in a private network namespace"),
            Self::Simulated(why) => write!(f, "a SIMULATED host ({why}): no loop device and no link is real"),
        }
    }
}

/// Runs the demo with files below `directory`. Fails if anything is left over at the end.
pub fn run(host: &DemoHost, directory: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    say(&format!("Xenplug on {host}."));
    say("The store is the embedded one; toolstack, kernel and guest are played. Times are in milliseconds.");

    let mut timeline = Timeline::new(say);
    timeline.chapter("Set up");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let socket = directory.join("xenstored");
    let _server = {
        let _inside = runtime.enter();
        Server::bind(&socket, Options::default()).context("the embedded store")?
    };
    let mut observer = Store::connect(&socket)?;
    observer.write("/local/domain/0/domid", "0")?;
    timeline.step("store", "serves the xenstore protocol on a socket");
    if let Some(namespace) = host.namespace() {
        namespace.bridge(BRIDGE)?;
        timeline.step("host", &format!("has a bridge, {BRIDGE}"));
    }
    let images = directory.join("images");
    fs::create_dir(&images)?;
    let image = images.join("guest.img");
    File::create(&image)?.set_len(64 << 20)?;
    timeline.step("host", "has a disk image of 64 MiB");
    let _kernel = Kernel::start(&socket, 0, host.namespace())?;
    let mut config = Config::standard(directory, &images)?;
    if host.namespace().is_none() {
        let simulated = directory.join("host.toml");
        let link = Device::vif(GUEST, 0).link();
        let text =
            format!("files = [{{ path = {image:?}, size = \"64MiB\" }}]\nbridges = [{BRIDGE:?}]\nlinks = [{link:?}]\n");
        fs::write(&simulated, text)?;
        config.simulated = Some(simulated);
    }
    let daemon = Daemon::start(&socket, host.namespace().map(Arc::as_ref), config)?;
    timeline.step("xenplugd", "has compiled its plugins, phy and vif-bridge, and serves");
    let mut toolstack = Toolstack::new(Store::connect(&socket)?);
    toolstack.build(GUEST)?;
    timeline.step("toolstack", &format!("has built guest {GUEST}"));

    let scope = Scope {
        domain: 0,
        directory,
        socket: socket.clone(),
        namespace: host.namespace().map(Arc::as_ref),
        in_debian: false,
        daemon: Some(&daemon),
    };
    let before = Baseline::of(&scope)?;

    let (disk, vif) = (Device::disk(GUEST, 0), Device::vif(GUEST, 0));
    for (device, what, nodes) in [(&disk, "disk", Disk::on(&image)), (&vif, "vif", Vif::on(BRIDGE))] {
        timeline.chapter(&format!("Attach a {what} to guest {GUEST}"));
        let connected = format!("{}/state", device.backend());
        timeline.follow(
            &mut observer,
            device,
            || toolstack.attach(device, &nodes),
            (&connected, Some("4")),
        )?;
    }

    timeline.chapter("The host now");
    for one in attached_below(directory)? {
        timeline.step("kernel", &format!("{} on {}", one.device.display(), one.backing));
    }
    if let Some(namespace) = host.namespace() {
        for port in namespace.ports(BRIDGE)? {
            timeline.step("kernel", &format!("{port} is a port of {BRIDGE}"));
        }
    }
    let (resident, _) = daemon.memory()?;
    timeline.step(
        "xenplugd",
        &format!("takes {:.1} MB of memory", resident as f64 * 1024.0 / 1e6),
    );

    for (device, what) in [(&vif, "vif"), (&disk, "disk")] {
        timeline.chapter(&format!("Detach the {what}"));
        timeline.follow(
            &mut observer,
            device,
            || toolstack.detach(device),
            (&device.backend(), None),
        )?;
        toolstack.finish(device, Duration::from_secs(10))?;
    }

    timeline.chapter("Left over");
    let left = before.difference_after(&scope, Duration::from_secs(5))?;
    ensure!(
        left.is_empty(),
        "not as before:\n{left}--- the daemon's log\n{}",
        daemon.log()
    );
    timeline.step(
        "host",
        "nothing: loop devices, links, nodes, descriptors and records are as before",
    );
    Ok(())
}
