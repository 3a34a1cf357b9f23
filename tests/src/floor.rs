//! Floor of the benchmark: the least that an attach can cost. The program makes only the system calls and store
//! requests that cannot be left out, one after the other, and validates nothing.
//!
//! It is a server like the daemon, so that the benchmark measures both in the same way. For a disk it reads the nodes
//! that it needs, opens the file, attaches a loop device, and publishes in a transaction that reads `state` again. For
//! a vif it reads the bridge's index and MTU, sets the link up as a port in one message, and publishes. When a device's
//! directory goes, it releases the device.

mod link;
pub(crate) mod loop_device;

use std::{collections::HashMap, thread, time::Duration};

use anyhow::{Context, Result};
use rustix::fd::OwnedFd;

use crate::{
    harness::{Device, Kind},
    store::{self, Store},
};

/// Serves until the connection to the store breaks; calls `ready` once the watch is set.
pub fn serve(mut store: Store, ready: impl FnOnce()) -> Result<()> {
    raise_descriptor_limit()?;
    let mut links = link::Links::open()?;
    let mut held: HashMap<Device, Option<OwnedFd>> = HashMap::new();
    store.watch("backend", "floor")?;
    ready();
    loop {
        let Some(event) = store.event(Duration::from_secs(3600))? else {
            continue;
        };
        let Some(device) = Device::of_path(&event.path) else {
            continue;
        };
        let is_state = event.path.ends_with("/state");
        if is_state && !held.contains_key(&device) && store.find(&event.path)?.as_deref() == Some("2") {
            let attached = match device.kind {
                Kind::Vbd | Kind::Vbd3 | Kind::Vscsi => Some(connect_disk(&mut store, &device)?),
                Kind::Vif => {
                    connect_vif(&mut store, &mut links, &device)?;
                    None
                }
            };
            held.insert(device, attached);
        } else if event.path.ends_with(&format!("/{}", device.devid)) && store.find(&event.path)?.is_none() {
            held.remove(&device);
        }
    }
}

fn connect_disk(store: &mut Store, device: &Device) -> Result<OwnedFd> {
    let backend = device.backend();
    let path = store.read(&format!("{backend}/params"))?;
    let writable = store.read(&format!("{backend}/mode"))?.contains('w');
    let (number, attached) = loop_device::attach(&path, writable).with_context(|| path.clone())?;
    publish(store, &backend, |store| {
        store.write(&format!("{backend}/node"), format!("/dev/loop{number}"))?;
        store.write(
            &format!("{backend}/physical-device"),
            format!("{:x}:{number:x}", loop_device::MAJOR),
        )
    })?;
    Ok(attached)
}

fn connect_vif(store: &mut Store, links: &mut link::Links, device: &Device) -> Result<()> {
    let backend = device.backend();
    let bridge = store.read(&format!("{backend}/bridge"))?;
    let (index, mtu) = links.bridge(&bridge)?;
    // netback announces state 2 before it creates the link. The benchmark creates its links beforehand.
    while !links.enslave(&device.link(), index, mtu)? {
        thread::sleep(Duration::from_micros(100));
    }
    publish(store, &backend, |store| {
        store.write(&format!("{}/mtu", device.frontend()), mtu.to_string())
    })
}

/// Publishes a device if it is still in state 2, `hotplug-status` last.
fn publish(
    store: &mut Store,
    backend: &str,
    mut nodes: impl FnMut(&mut Store) -> Result<(), store::Error>,
) -> Result<()> {
    Ok(store.transaction(|store| {
        if store.read(&format!("{backend}/state"))? == "2" {
            nodes(store)?;
            store.write(&format!("{backend}/hotplug-status"), "connected")?;
        }
        Ok(())
    })?)
}

/// Raises the limit of descriptors. The program holds one for each disk, and 1000 disks exceed the usual limit.
fn raise_descriptor_limit() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit of descriptors")
}
