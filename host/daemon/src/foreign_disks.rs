//! The disks in dom0 that original hotplug scripts have set up beside the daemon: which device uses which block device.
//!
//! The daemon keeps a list of all disks and reads what has changed since when a handler asks: a new device costs the store a few
//! requests, however many disks there are. The original check reads them all, with one process for each node
//! (tools/hotplug/Linux/block, `check_sharing`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};
use xenplug_runtime::{Claim, Sharing};
use xenplug_xenbus::{DeviceInstance, DeviceKey, Kind, Phase};
use xenplug_xenstore::{Error, Path, Reply, Request};

use crate::{
    context::DaemonContext,
    device::{Registry, normalize_vm_path},
};

/// Requests to the dispatch to process the watch events that have arrived, each with the sender of its completion.
pub(crate) type Flushes = UnboundedReceiver<oneshot::Sender<()>>;

/// The disks of this domain's backends.
pub(crate) struct ForeignDisks {
    context: Arc<DaemonContext>,
    registry: Arc<Registry>,
    flush: UnboundedSender<oneshot::Sender<()>>,
    list: Mutex<DiskList>,
}

#[derive(Default)]
struct DiskList {
    disks: BTreeMap<DeviceKey, Disk>,
    /// The devices that may have changed since they were read.
    stale: BTreeSet<DeviceKey>,
}

/// A connected disk.
struct Disk {
    number: (u32, u32),
    sharing: Sharing,
    vms: Vec<String>,
}

impl ForeignDisks {
    pub(crate) fn new(context: Arc<DaemonContext>, registry: Arc<Registry>) -> (Self, Flushes) {
        let (flush, flushes) = unbounded_channel();
        let disks = Self {
            context,
            registry,
            flush,
            list: Mutex::default(),
        };
        (disks, flushes)
    }

    /// Marks a device that has changed, or was found. `leaf` is the node, if one node has changed.
    pub(crate) fn changed(&self, key: &DeviceKey, leaf: Option<&str>) {
        let relevant = matches!(leaf, None | Some("physical-device" | "mode" | "hotplug-status"));
        if key.kind == Kind::VBD && relevant {
            self.list().stale.insert(key.clone());
        }
    }

    /// Marks all known devices.
    pub(crate) fn all_changed(&self) {
        let mut list = self.list();
        let known: Vec<DeviceKey> = list.disks.keys().cloned().collect();
        list.stale.extend(known);
    }

    /// Lists the foreign users of a block device now.
    pub(crate) async fn users(&self, number: (u32, u32)) -> Result<Vec<Claim>, String> {
        self.flush().await?;
        self.refresh()
            .await
            .map_err(|error| format!("cannot read the disks of other devices: {error}"))?;
        let held = |key: &DeviceKey| {
            let phase = self.registry.phase(&DeviceInstance::main(key.clone()));
            phase.is_some_and(Phase::holds)
        };
        let list = self.list();
        let users = list
            .disks
            .iter()
            .filter(|(key, disk)| disk.number == number && !held(key));
        let claims = users.map(|(key, disk)| Claim {
            device: key.clone(),
            vms: disk.vms.clone(),
            sharing: disk.sharing,
        });
        Ok(claims.collect())
    }

    /// Waits until every change that was written before now is marked. The store sends the events of earlier writes before
    /// its reply to a later read.
    async fn flush(&self) -> Result<(), String> {
        match self.context.store.read(&self.context.backend_root()).await {
            Err(error) if !error.is_not_found() => return Err(format!("cannot read the backends: {error}")),
            _ => {}
        }
        let (done, flushed) = oneshot::channel();
        let ends = "the daemon ends";
        self.flush.send(done).map_err(|_| ends.to_owned())?;
        flushed.await.map_err(|_| ends.to_owned())
    }

    /// Reads the marked devices in one batch. Devices that change meanwhile are marked again.
    async fn refresh(&self) -> Result<(), Error> {
        let stale = std::mem::take(&mut self.list().stale);
        let read = self.read(&stale).await;
        let mut list = self.list();
        match read {
            Ok(read) => {
                for (key, disk) in read {
                    match disk {
                        Some(disk) => _ = list.disks.insert(key, disk),
                        None => _ = list.disks.remove(&key),
                    }
                }
                Ok(())
            }
            Err(error) => {
                list.stale.extend(stale);
                Err(error)
            }
        }
    }

    async fn read(&self, keys: &BTreeSet<DeviceKey>) -> Result<Vec<(DeviceKey, Option<Disk>)>, Error> {
        let path = |text: String| text.parse::<Path>().expect("a path of numbers and a kind is a path");
        let root = self.context.backend_root();
        let requests = keys.iter().flat_map(|key| {
            let backend = format!("{root}/{key}");
            let guest = format!("/local/domain/{}", key.frontend);
            [
                format!("{backend}/physical-device"),
                format!("{backend}/mode"),
                format!("{backend}/hotplug-status"),
                format!("{guest}/vm"),
                format!("{guest}/target"),
            ]
            .map(|text| Request::Read(path(text)))
        });
        let store = &self.context.store;
        let mut replies = store.batch(requests.collect()).await?.into_iter().map(text);
        let mut disks = Vec::with_capacity(keys.len());
        for key in keys {
            let mut next = || replies.next().transpose().map(Option::flatten);
            let (number, mode, status) = (next()?, next()?, next()?);
            let (vm, target) = (next()?, next()?);
            let number = number
                .filter(|_| status.as_deref() == Some("connected"))
                .and_then(|number| parse_number(&number));
            let disk = match number {
                Some(number) => {
                    let target = match target {
                        Some(target) if target.bytes().all(|byte| byte.is_ascii_digit()) => {
                            let vm = store.read(&path(format!("/local/domain/{target}/vm"))).await;
                            text(vm.map(Reply::Value))?
                        }
                        _ => None,
                    };
                    Some(Disk {
                        number,
                        sharing: sharing(mode.as_deref().unwrap_or_default()),
                        vms: vm.into_iter().chain(target).map(normalize_vm_path).collect(),
                    })
                }
                None => None,
            };
            disks.push((key.clone(), disk));
        }
        Ok(disks)
    }

    fn list(&self) -> MutexGuard<'_, DiskList> {
        // Every change is one call of a map or set, so a poisoned list is still whole.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a reply's value; `None` for a node that is absent or may not be read.
fn text(reply: Result<Reply, Error>) -> Result<Option<String>, Error> {
    match reply {
        Ok(Reply::Value(value)) => Ok(String::from_utf8(value).ok()),
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() || error.is_denied() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Parses `physical-device`, which is hexadecimal.
fn parse_number(number: &str) -> Option<(u32, u32)> {
    let (major, minor) = number.split_once(':')?;
    Some((
        u32::from_str_radix(major, 16).ok()?,
        u32::from_str_radix(minor, 16).ok()?,
    ))
}

/// Returns how a disk of that mode shares its block device (tools/hotplug/Linux/block-common.sh, `canonicalise_mode`).
fn sharing(mode: &str) -> Sharing {
    match (mode.contains('w'), mode.contains('!')) {
        (false, _) => Sharing::Readers,
        (true, false) => Sharing::Alone,
        (true, true) => Sharing::Unchecked,
    }
}
