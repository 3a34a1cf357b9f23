//! The floor: the least that an attach can cost. Only the system calls and store requests that cannot be left out, one
//! after the other, by a program that trusts everybody.
//!
//! It is a server like the daemon, so that the same stopwatch measures both. For a disk: read what is needed, open the
//! file, attach a loop device, publish in a transaction that reads `state` again. For a vif: look at the bridge, set
//! the link up as its port in one message, publish likewise. A device whose directory goes is let go.

mod link;
pub(crate) mod loop_device;

use std::{collections::HashMap, thread, time::Duration};

use anyhow::{Context, Result};
use rustix::fd::OwnedFd;

use crate::{
    harness::{Device, Kind},
    store::{self, Store},
};

/// Serves until the store goes away; calls `ready` once all is set up.
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
                Kind::Vbd | Kind::Vbd3 | Kind::Vscsi => Some(plug_disk(&mut store, &device)?),
                Kind::Vif => {
                    plug_vif(&mut store, &mut links, &device)?;
                    None
                }
            };
            held.insert(device, attached);
        } else if event.path.ends_with(&format!("/{}", device.devid)) && store.find(&event.path)?.is_none() {
            held.remove(&device);
        }
    }
}

fn plug_disk(store: &mut Store, device: &Device) -> Result<OwnedFd> {
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

fn plug_vif(store: &mut Store, links: &mut link::Links, device: &Device) -> Result<()> {
    let backend = device.backend();
    let bridge = store.read(&format!("{backend}/bridge"))?;
    let (index, mtu) = links.bridge(&bridge)?;
    // netback announces state 2 before it makes the link. The stopwatch's links are there already.
    while !links.enslave(&device.link(), index, mtu)? {
        thread::sleep(Duration::from_micros(100));
    }
    publish(store, &backend, |store| {
        store.write(&format!("{}/mtu", device.frontend()), mtu.to_string())
    })
}

/// Publishes a device that is still in state 2, `hotplug-status` last.
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

/// A descriptor is held for each disk, and 1000 disks are more than the usual limit.
fn raise_descriptor_limit() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit of descriptors")
}
