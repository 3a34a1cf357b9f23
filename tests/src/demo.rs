//! The tour: a disk and a network card are plugged and unplugged, step by step, and nothing is left.
//!
//! Real is the daemon with its plugins, and as root the loop device, the bridge and the link, in a private network
//! namespace. The store is the embedded one; toolstack, kernel and guest are played.

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
    harness::{
        Baseline, Config, Daemon, DebianRoot, Device, Disk, Kernel, Namespace, Scope, Toolstack, Vif, attached_below,
    },
    store::Store,
};

const GUEST: u16 = 3;
const BRIDGE: &str = "xenbr0";

/// On what machine the tour goes.
#[derive(Debug)]
pub enum Ground {
    /// This one, with a network of its own.
    Real(Arc<Namespace>),
    /// One that exists only in the daemon's memory, and why.
    Simulated(String),
}

impl Ground {
    /// This machine if it lets us, else a simulated one.
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

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real(_) => write!(f, "a real loop device, a real bridge in a private network namespace"),
            Self::Simulated(why) => write!(f, "a SIMULATED machine ({why}): no loop device and no link is real"),
        }
    }
}

/// Goes the tour, with files in a directory of its own; an error if anything is left at the end.
pub fn run(ground: &Ground, directory: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    say(&format!("Xenplug on {ground}."));
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
    if let Some(namespace) = ground.namespace() {
        namespace.bridge(BRIDGE)?;
        timeline.step("machine", &format!("has a bridge, {BRIDGE}"));
    }
    let images = directory.join("images");
    fs::create_dir(&images)?;
    let image = images.join("guest.img");
    File::create(&image)?.set_len(64 << 20)?;
    timeline.step("machine", "has a disk image of 64 MiB");
    let _kernel = Kernel::start(&socket, 0, ground.namespace())?;
    let mut config = Config::standard(directory, &images)?;
    if ground.namespace().is_none() {
        let machine = directory.join("machine.toml");
        let link = Device::card(GUEST, 0).link();
        let text =
            format!("files = [{{ path = {image:?}, size = \"64MiB\" }}]\nbridges = [{BRIDGE:?}]\nlinks = [{link:?}]\n");
        fs::write(&machine, text)?;
        config.simulated = Some(machine);
    }
    let daemon = Daemon::start(&socket, ground.namespace().map(Arc::as_ref), config)?;
    timeline.step("xenplugd", "has compiled its plugins, phy and vif-bridge, and serves");
    let mut toolstack = Toolstack::new(Store::connect(&socket)?);
    toolstack.build(GUEST)?;
    timeline.step("toolstack", &format!("has built guest {GUEST}"));

    let rig = DebianRoot::find().ok();
    let scope = Scope {
        domain: 0,
        directory,
        socket: socket.clone(),
        namespace: ground.namespace().map(Arc::as_ref),
        rig: rig.as_ref(),
        daemon: Some(&daemon),
    };
    let before = Baseline::of(&scope)?;

    let (disk, card) = (Device::disk(GUEST, 0), Device::card(GUEST, 0));
    for (device, what, nodes) in [
        (&disk, "disk", Disk::on(&image)),
        (&card, "network card", Vif::on(BRIDGE)),
    ] {
        timeline.chapter(&format!("Plug a {what} into guest {GUEST}"));
        let connected = format!("{}/state", device.backend());
        timeline.follow(
            &mut observer,
            device,
            || toolstack.attach(device, &nodes),
            (&connected, Some("4")),
        )?;
    }

    timeline.chapter("What the machine has now");
    for one in attached_below(directory)? {
        timeline.step("kernel", &format!("{} on {}", one.device.display(), one.backing));
    }
    if let Some(namespace) = ground.namespace() {
        for port in namespace.ports(BRIDGE)? {
            timeline.step("kernel", &format!("{port} is a port of {BRIDGE}"));
        }
    }
    let (resident, _) = daemon.memory()?;
    timeline.step(
        "xenplugd",
        &format!("takes {:.1} MB of memory", resident as f64 * 1024.0 / 1e6),
    );

    for (device, what) in [(&card, "network card"), (&disk, "disk")] {
        timeline.chapter(&format!("Unplug the {what}"));
        timeline.follow(
            &mut observer,
            device,
            || toolstack.detach(device),
            (&device.backend(), None),
        )?;
        toolstack.finish(device, Duration::from_secs(10))?;
    }

    timeline.chapter("What is left");
    let left = before.difference_after(&scope, Duration::from_secs(5))?;
    ensure!(
        left.is_empty(),
        "not as before:\n{left}--- the daemon's log\n{}",
        daemon.log()
    );
    timeline.step(
        "machine",
        "nothing: loop devices, links, nodes, descriptors and records are as before",
    );
    Ok(())
}
