//! Played kernel: the backends blkback and netback, and a guest's frontends that answer them at once.
//!
//! It follows drivers/block/xen-blkback/xenbus.c and drivers/net/xen-netback/xenbus.c. A probed backend enters state 2.
//! blkback opens the device as soon as `physical-device` appears, and holds it until it is closed. netback creates the
//! link after it has announced state 2, delays state 4 until `hotplug-status` is `connected`, and removes the link with
//! the device.

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

/// Token of the played kernel's watch.
pub(super) const TOKEN: &str = "kernel";

/// Longest sleep before the played kernel checks whether it has to stop.
const NAP: Duration = Duration::from_millis(50);

/// Backends of one host. Dropping the value releases all their devices.
#[derive(Debug)]
pub struct Kernel {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    /// Starts the backends of a domain. Links appear in the namespace; without one the host is simulated, and only
    /// states are written. After the connection to the store breaks, the backends connect again.
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
    /// Their directory in the store.
    top: String,
    namespace: Option<Arc<Namespace>>,
    held: BTreeMap<Device, Held>,
}

/// Resources that the kernel holds for a device.
#[derive(Default)]
struct Held {
    disk: Option<File>,
    link: bool,
}

impl Backends {
    #[allow(clippy::print_stderr, reason = "a player reports errors in the test's output")]
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
                if let Err(error) = self.advance(&mut store, device) {
                    self.complain(&error.context(device.backend()));
                }
            }
        }
        Ok(())
    }

    /// Returns all devices in the store, and those with held resources.
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

    /// Advances a device as far as its nodes permit.
    fn advance(&mut self, store: &mut Store, device: Device) -> Result<()> {
        let backend = device.backend();
        let node = |store: &mut Store, name: &str| store.find(&format!("{backend}/{name}"));
        let Some(state) = node(store, "state")? else {
            return self.release(device, true);
        };
        match state.as_str() {
            // Tapback leaves state 1 once tapdisk runs.
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
                    // Their backends wait for the status alone.
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
                self.release(device, false)?;
                switch(store, &device, "5", "6")?;
            }
            "6" => {
                let online = node(store, "online")?;
                self.release(device, online.as_deref() != Some("1"))?;
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

    /// Closes the disk. With `for_good` it also removes the link, by the guest's end, because the daemon may have
    /// renamed the other end.
    fn release(&mut self, device: Device, for_good: bool) -> Result<()> {
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

/// Changes a backend from one state to another. Returns false if it is not in the first.
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
