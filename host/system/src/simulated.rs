//! Simulated host for tests, plugin authors, and demonstrations without root.
//!
//! [`SimHost`] is the host: files, block devices, links and programs that a test adds and inspects, and errors that a
//! test injects. Each [`Platform`] on it belongs to one daemon. When its last clone is dropped, its descriptors close,
//! and its loop devices go unless someone else has them open, as after the end of a daemon.

mod block;
mod faults;
mod files;
mod firewall;
mod network;
mod process;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, mpsc::Sender},
};

use self::{
    block::SimulatedBlock, faults::Faults, files::Files, firewall::SimulatedFirewall, network::SimulatedNetwork,
    process::SimulatedProcess,
};
pub use self::{
    faults::{FaultInjector, Operation},
    process::Program,
};
use crate::{
    Error, Platform,
    block::LoopDevice,
    firewall::Sources,
    lock::NoScripts,
    network::{IfName, Link, Prefix, Route},
    process::HelperProcess,
    sync::lock,
};

/// A simulated host. Its methods play the administrator, the kernel and the guests.
#[derive(Debug, Default)]
pub struct SimHost {
    world: Mutex<World>,
}

#[derive(Debug, Default)]
struct World {
    files: Files,
    loops: BTreeMap<u32, Loop>,
    diskseq: u64,
    links: BTreeMap<u32, SimLink>,
    link_number: u32,
    watchers: Vec<Sender<Option<IfName>>>,
    rules: BTreeMap<IfName, Sources>,
    programs: BTreeMap<std::path::PathBuf, Program>,
    runs: Vec<String>,
    processes: BTreeMap<u32, HelperProcess>,
    pid: u32,
    sources: BTreeSet<u64>,
    source_number: u64,
    faults: Faults,
}

/// A loop device and the number of its users. It goes with the last one.
#[derive(Clone, Debug)]
struct Loop {
    device: LoopDevice,
    users: u32,
}

/// A link with its addresses and routes.
#[derive(Clone, Debug)]
struct SimLink {
    link: Link,
    addresses: Vec<Prefix>,
    routes: Vec<Route>,
    proxy_arp: bool,
}

/// All state that a host has for devices. Two snapshots are equal if nothing was left behind between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Attached loop devices.
    pub loops: Vec<LoopDevice>,
    /// Links, each with its addresses and routes.
    pub links: Vec<(Link, Vec<Prefix>, Vec<Route>)>,
    /// Links with `proxy_arp`.
    pub answering: Vec<IfName>,
    /// Sources that links may send from.
    pub rules: BTreeMap<IfName, Sources>,
    /// Running helpers.
    pub processes: Vec<HelperProcess>,
    /// Number of open files and block devices.
    pub sources: usize,
}

impl Platform {
    /// Makes a simulated host, and a platform on it.
    pub fn simulated() -> (Self, Arc<SimHost>) {
        let host = Arc::new(SimHost::default());
        (host.system(), host)
    }
}

impl SimHost {
    /// Makes the platform of one daemon on this host, like [`Platform::linux`]. A test may make several.
    pub fn system(self: &Arc<Self>) -> Platform {
        Platform {
            block: Arc::new(SimulatedBlock::on(self.clone())),
            network: Arc::new(SimulatedNetwork(self.clone())),
            firewall: Arc::new(SimulatedFirewall(self.clone())),
            process: Arc::new(SimulatedProcess(self.clone())),
            locks: Arc::new(NoScripts),
        }
    }

    /// Makes the `nth` call of an operation from now on fail without effect, where 1 is the next one.
    pub fn fail(&self, operation: Operation, nth: usize, error: Error) {
        self.world().faults.add(operation, nth, error);
    }

    /// Lets `injector` decide about every later call for which [`SimHost::fail`] injects no error.
    pub fn set_fault_injector(&self, injector: Box<dyn FaultInjector>) {
        self.world().faults.set_injector(injector);
    }

    /// Returns the number of calls of an operation.
    pub fn calls(&self, operation: Operation) -> usize {
        self.world().faults.calls(operation)
    }

    /// Returns the state that the host has for devices.
    pub fn snapshot(&self) -> Snapshot {
        let world = self.world();
        Snapshot {
            loops: world.loops.values().map(|attached| attached.device.clone()).collect(),
            links: world
                .links
                .values()
                .map(|entry| (entry.link.clone(), entry.addresses.clone(), entry.routes.clone()))
                .collect(),
            answering: world
                .links
                .values()
                .filter(|entry| entry.proxy_arp)
                .map(|entry| entry.link.name.clone())
                .collect(),
            rules: world.rules.clone(),
            processes: world.processes.values().cloned().collect(),
            sources: world.sources.len(),
        }
    }

    /// Adds a file of this size, writable for everyone. Directories need not be made.
    pub fn add_file(&self, path: impl AsRef<Path>, size: u64) {
        self.world().files.add_file(path.as_ref(), size);
    }

    /// Removes everyone's permission to write a file, or sets a block device read-only.
    pub fn forbid_writing(&self, path: impl AsRef<Path>) {
        self.world().files.forbid_writing(path.as_ref());
    }

    /// Adds a block device.
    pub fn add_block_device(&self, path: impl AsRef<Path>, major: u32, minor: u32, size: u64) {
        let mut world = self.world();
        world.diskseq += 1;
        let diskseq = world.diskseq;
        world
            .files
            .add_block_device(path.as_ref(), (major, minor), size, diskseq);
    }

    /// Adds a symbolic link.
    pub fn add_symlink(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        self.world().files.add_symlink(path.as_ref(), target.as_ref());
    }

    /// Adds a named pipe, which is neither a file nor a block device.
    pub fn add_pipe(&self, path: impl AsRef<Path>) {
        self.world().files.add_pipe(path.as_ref());
    }

    /// Deletes a file, link or device. A loop device on it stays attached.
    pub fn remove(&self, path: impl AsRef<Path>) {
        self.world().files.remove(path.as_ref());
    }

    /// Mounts a block device, which may be a loop device.
    pub fn mount(&self, path: impl AsRef<Path>, point: &str, read_only: bool) {
        self.world()
            .files
            .mount(path.as_ref(), Some((point.to_owned(), read_only)));
    }

    /// Unmounts a block device.
    pub fn unmount(&self, path: impl AsRef<Path>) {
        self.world().files.mount(path.as_ref(), None);
    }

    /// Opens a loop device, as blkback does.
    pub fn open_loop(&self, number: u32) {
        if let Some(attached) = self.world().loops.get_mut(&number) {
            attached.users += 1;
        }
    }

    /// Closes a loop device that was opened by [`SimHost::open_loop`].
    pub fn close_loop(&self, number: u32) {
        self.world().close_loop(number);
    }

    /// Returns the attached loop devices.
    pub fn loops(&self) -> Vec<LoopDevice> {
        self.snapshot().loops
    }

    /// Makes a bridge, and returns its number.
    pub fn add_bridge(&self, name: &IfName) -> u32 {
        self.world().add_link(name, true)
    }

    /// Makes a link that is down, as netback does, and returns its number.
    pub fn add_link(&self, name: &IfName) -> u32 {
        self.world().add_link(name, false)
    }

    /// Removes a link, as the kernel does when its device goes. Rules for it stay.
    pub fn remove_link(&self, name: &IfName) {
        self.world().remove_link(name);
    }

    /// Returns the links.
    pub fn links(&self) -> Vec<Link> {
        self.world().links.values().map(|entry| entry.link.clone()).collect()
    }

    /// Returns the addresses of a link.
    pub fn addresses(&self, name: &IfName) -> Vec<Prefix> {
        self.world()
            .link_named(name)
            .map(|entry| entry.addresses.clone())
            .unwrap_or_default()
    }

    /// Returns the routes through a link.
    pub fn routes(&self, name: &IfName) -> Vec<Route> {
        self.world()
            .link_named(name)
            .map(|entry| entry.routes.clone())
            .unwrap_or_default()
    }

    /// Adds an address to a link, as the administrator does.
    pub fn add_address(&self, name: &IfName, address: Prefix) {
        if let Some(entry) = self.world().links.values_mut().find(|entry| entry.link.name == *name) {
            entry.addresses.push(address);
        }
    }

    /// Returns the sources that a link may send from; `None` for any.
    pub fn rules(&self, name: &IfName) -> Option<Sources> {
        self.world().rules.get(name).cloned()
    }

    /// Tells whether an IP packet from that address passes the rules for a link.
    pub fn passes(&self, name: &IfName, source: IpAddr) -> bool {
        let world = self.world();
        let Some(rules) = world.rules.get(name) else {
            return true;
        };
        let link_local = matches!(source, IpAddr::V6(source) if source.is_unicast_link_local());
        link_local
            || rules
                .ipv4
                .iter()
                .chain(&rules.ipv6)
                .any(|prefix| prefix.contains(source))
    }

    /// Installs a program.
    pub fn add_program(&self, path: impl AsRef<Path>, program: Program) {
        self.world().programs.insert(path.as_ref().to_owned(), program);
    }

    /// Returns the helpers that ran, in order, each with its name and arguments.
    pub fn runs(&self) -> Vec<String> {
        self.world().runs.clone()
    }

    /// Returns the running helpers.
    pub fn processes(&self) -> Vec<HelperProcess> {
        self.snapshot().processes
    }

    /// Kills a process.
    pub fn kill(&self, pid: u32) {
        self.world().processes.remove(&pid);
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Returns the state for a call, unless an error is injected for it.
    fn enter(&self, operation: Operation) -> Result<MutexGuard<'_, World>, Error> {
        let mut world = self.world();
        world.faults.call(operation)?;
        Ok(world)
    }
}

#[cfg(test)]
mod tests;
