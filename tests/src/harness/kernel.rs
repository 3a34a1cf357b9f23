//! Plays the kernel's backends, blkback and netback, and the guest's frontends that answer them at once.
//!
//! After drivers/block/xen-blkback/xenbus.c and drivers/net/xen-netback/xenbus.c: state 2 when probed; blkback opens the
//! device as soon as `physical-device` appears and holds it until it is closed; netback makes the link after it has
//! announced state 2, holds state 4 back until `hotplug-status` is `connected`, and removes the link with the device.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Device, Kind, Namespace};
use crate::store::{self, Store};

/// The token of its watch.
pub(super) const TOKEN: &str = "kernel";

/// How long the kernel sleeps at most before it sees that it is to stop.
const NAP: Duration = Duration::from_millis(50);

/// The backends of one machine. They let go of everything when this is dropped.
#[derive(Debug)]
pub struct Kernel {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    /// Starts the backends of a domain. Links appear in the namespace; without one the machine is a simulated one, and only states
    /// are written. A store that goes away is connected to again.
    pub fn start(socket: &Path, domain: u16, namespace: Option<&Arc<Namespace>>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (socket, namespace, stopped) = (socket.to_owned(), namespace.cloned(), Arc::clone(&stop));
        let thread = thread::Builder::new().name("kernel".to_owned()).spawn(move || {
            let mut backends = Backends {
                top: format!("/local/domain/{domain}/backend"),
                namespace,
                held: BTreeMap::new(),
            };
            while !stopped.load(Relaxed) {
                if let Err(error) = Store::connect(&socket)
                    .map_err(Into::into)
                    .and_then(|s| backends.run(s, &stopped))
                {
                    backends.complain(&error);
                    thread::sleep(NAP);
                }
            }
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Backends {
    /// Where they are in the store.
    top: String,
    namespace: Option<Arc<Namespace>>,
    held: BTreeMap<Device, Held>,
}

/// What the kernel holds for a device.
#[derive(Default)]
struct Held {
    disk: Option<File>,
    link: bool,
}

impl Backends {
    #[allow(clippy::print_stderr, reason = "the test's own output is the only place for it")]
    fn complain(&self, error: &anyhow::Error) {
        eprintln!("the played kernel: {error:#}");
    }

    fn run(&mut self, mut store: Store, stop: &AtomicBool) -> Result<()> {
        store.watch(&self.top, TOKEN)?;
        while !stop.load(Relaxed) {
            let Some(event) = store.event(NAP)? else { continue };
            let devices = match Device::of_path(&event.path) {
                Some(device) => vec![device],
                None => self.devices(&mut store)?,
            };
            for device in devices {
                if let Err(error) = self.look_at(&mut store, device) {
                    self.complain(&error.context(device.backend()));
                }
            }
        }
        Ok(())
    }

    /// All devices in the store, and those held.
    fn devices(&self, store: &mut Store) -> Result<Vec<Device>> {
        let mut devices: Vec<Device> = self.held.keys().copied().collect();
        for kind in ["vbd", "vbd3", "vif"] {
            for domid in store.children(&format!("{}/{kind}", self.top))? {
                let directory = format!("{}/{kind}/{domid}", self.top);
                let names = store.children(&directory)?;
                devices.extend(
                    names
                        .iter()
                        .filter_map(|devid| Device::of_path(&format!("{directory}/{devid}"))),
                );
            }
        }
        Ok(devices)
    }

    /// Brings one device on, as far as the store lets it.
    fn look_at(&mut self, store: &mut Store, device: Device) -> Result<()> {
        let backend = device.backend();
        let node = |store: &mut Store, name: &str| store.find(&format!("{backend}/{name}"));
        let Some(state) = node(store, "state")? else {
            return self.let_go(device, true);
        };
        match state.as_str() {
            // Tapback goes on when tapdisk is there.
            "1" if device.kind == Kind::Vbd3 && node(store, "hotplug-status")?.as_deref() != Some("connected") => {}
            "1" => {
                self.held.entry(device).or_default();
                switch(store, &device, "1", "2")?;
                if device.kind == Kind::Vif {
                    self.make_link(device)?;
                }
            }
            "2" | "3" => {
                let ready = match device.kind {
                    Kind::Vbd => match node(store, "physical-device")? {
                        Some(number) => {
                            let writable = node(store, "mode")?.is_some_and(|mode| mode.contains('w'));
                            let held = self.held.entry(device).or_default();
                            if held.disk.is_none() && self.namespace.is_some() {
                                held.disk = Some(open(&number, writable)?);
                            }
                            true
                        }
                        None => false,
                    },
                    // Their backends are processes.
                    Kind::Vbd3 | Kind::Vscsi => node(store, "hotplug-status")?.as_deref() == Some("connected"),
                    Kind::Vif => {
                        self.make_link(device)?;
                        node(store, "hotplug-status")?.as_deref() == Some("connected")
                    }
                };
                if ready && switch(store, &device, &state, "4")? {
                    store.write(&format!("{}/state", device.frontend()), "4")?;
                }
            }
            "5" => {
                self.let_go(device, false)?;
                switch(store, &device, "5", "6")?;
            }
            "6" => {
                let online = node(store, "online")?;
                self.let_go(device, online.as_deref() != Some("1"))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn make_link(&mut self, device: Device) -> Result<()> {
        let held = self.held.entry(device).or_default();
        if let (false, Some(namespace)) = (held.link, &self.namespace) {
            namespace.vif(&device.link(), &device.guest_link())?;
            held.link = true;
        }
        Ok(())
    }

    /// Closes the disk; and for good, removes the link. By the guest's end, since the other may have been renamed.
    fn let_go(&mut self, device: Device, for_good: bool) -> Result<()> {
        let Some(held) = self.held.get_mut(&device) else {
            return Ok(());
        };
        held.disk = None;
        if for_good {
            let link = held.link;
            self.held.remove(&device);
            if let (true, Some(namespace)) = (link, &self.namespace) {
                namespace.ip(&format!("link delete {}", device.guest_link()))?;
            }
        }
        Ok(())
    }
}

/// Moves a backend from one state to another, if it is there and in that state.
fn switch(store: &mut Store, device: &Device, from: &str, to: &str) -> Result<bool, store::Error> {
    let path = format!("{}/state", device.backend());
    store.transaction(|store| {
        let there = store.find(&path)?.as_deref() == Some(from);
        if there {
            store.write(&path, to)?;
        }
        Ok(there)
    })
}

/// Opens a block device by its number in hexadecimal, `major:minor`, as blkback parses it.
fn open(number: &str, writable: bool) -> Result<File> {
    let (major, minor) = number.split_once(':').context("physical-device has no colon")?;
    let (major, minor) = (u32::from_str_radix(major, 16)?, u32::from_str_radix(minor, 16)?);
    let facts = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent"))
        .with_context(|| format!("there is no block device {major}:{minor}"))?;
    let name = facts
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))
        .context("a block device has a name")?;
    let path = Path::new("/dev").join(name);
    File::options()
        .read(true)
        .write(writable)
        .open(&path)
        .with_context(|| path.display().to_string())
}
