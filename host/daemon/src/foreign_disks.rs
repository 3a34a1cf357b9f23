//! The disks that original hotplug scripts have plugged beside us, in dom0: who uses which block device.
//!
//! A list of all disks is kept, and what the watch tells of is read again when somebody calls: a plug costs the store the
//! few requests about what has changed since the one before, however many disks there are. The original's check reads
//! them all, one process for each node (tools/hotplug/Linux/block, `check_sharing`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc,
    time::Duration,
};

use tokio::sync::mpsc::UnboundedSender;
use xenplug_runtime::{Claim, Sharing};
use xenplug_xenbus::{DeviceKey, DomId, Kind};
use xenplug_xenstore::{Client, Error, Path, Reply, Request};

use crate::directory::normalize_vm_path;

/// Somebody wants to know who uses a block device.
pub(crate) struct Question {
    number: (u32, u32),
    answer: mpsc::SyncSender<Result<Vec<Claim>, String>>,
}

/// Asks from a thread that may block.
pub(crate) fn ask(
    asker: &UnboundedSender<Question>,
    number: (u32, u32),
    patience: Duration,
) -> Result<Vec<Claim>, String> {
    let (answer, answered) = mpsc::sync_channel(1);
    let unknown = || "xenstore does not tell who uses the disk".to_owned();
    asker.send(Question { number, answer }).map_err(|_| unknown())?;
    answered.recv_timeout(patience).map_err(|_| unknown())?
}

/// The disks of this domain's backends.
#[derive(Debug)]
pub(crate) struct ForeignDisks {
    own: DomId,
    disks: BTreeMap<DeviceKey, Disk>,
    /// What may have changed since it was read.
    stale: BTreeSet<DeviceKey>,
}

/// A disk that somebody has plugged.
#[derive(Debug, PartialEq, Eq)]
struct Disk {
    number: (u32, u32),
    sharing: Sharing,
    vms: Vec<String>,
}

impl ForeignDisks {
    pub(crate) fn of(own: DomId) -> Self {
        Self {
            own,
            disks: BTreeMap::new(),
            stale: BTreeSet::new(),
        }
    }

    /// A device has changed, or was found. `leaf` is the node, if it is one.
    pub(crate) fn changed(&mut self, key: &DeviceKey, leaf: Option<&str>) {
        let tells = matches!(leaf, None | Some("physical-device" | "mode" | "hotplug-status"));
        if key.kind == Kind::VBD && tells {
            self.stale.insert(key.clone());
        }
    }

    /// All may have changed that is known. What is not is found by those who look for it.
    pub(crate) fn all_changed(&mut self) {
        self.stale.extend(self.disks.keys().cloned());
    }

    /// Answers a question. All that was published before it was put has to have been told by the watch.
    pub(crate) async fn answer(&mut self, client: &Client, ours: impl Fn(&DeviceKey) -> bool, question: Question) {
        let answer = match self.refresh(client).await {
            Ok(()) => Ok(self.users(question.number, ours)),
            Err(error) => Err(format!("xenstore does not tell who uses the disk: {error}")),
        };
        // Who asked may have given up.
        let _ = question.answer.send(answer);
    }

    fn users(&self, number: (u32, u32), ours: impl Fn(&DeviceKey) -> bool) -> Vec<Claim> {
        let users = self
            .disks
            .iter()
            .filter(|(key, disk)| disk.number == number && !ours(key));
        users
            .map(|(key, disk)| Claim {
                device: key.clone(),
                vms: disk.vms.clone(),
                sharing: disk.sharing,
            })
            .collect()
    }

    /// Reads what may have changed, all in one go.
    async fn refresh(&mut self, client: &Client) -> Result<(), Error> {
        let stale: Vec<DeviceKey> = self.stale.iter().cloned().collect();
        let path = |text: String| text.parse::<Path>().expect("a path of numbers and a kind is a path");
        let requests = stale.iter().flat_map(|key| {
            let backend = format!("/local/domain/{}/backend/{key}", self.own);
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
        let mut replies = client.batch(requests.collect()).await?.into_iter().map(text);
        for key in stale {
            let mut next = || replies.next().transpose().map(Option::flatten);
            let (number, mode, status) = (next()?, next()?, next()?);
            let (vm, target) = (next()?, next()?);
            let number = number
                .filter(|_| status.as_deref() == Some("connected"))
                .and_then(|number| parse(&number));
            match number {
                Some(number) => {
                    let target = match target {
                        Some(target) if target.bytes().all(|byte| byte.is_ascii_digit()) => {
                            let vm = client.read(&path(format!("/local/domain/{target}/vm"))).await;
                            text(vm.map(Reply::Value))?
                        }
                        _ => None,
                    };
                    let disk = Disk {
                        number,
                        sharing: sharing(mode.as_deref().unwrap_or_default()),
                        vms: vm.into_iter().chain(target).map(normalize_vm_path).collect(),
                    };
                    self.disks.insert(key.clone(), disk);
                }
                None => _ = self.disks.remove(&key),
            }
            self.stale.remove(&key);
        }
        Ok(())
    }
}

/// A reply's value; none for a node that is not there.
fn text(reply: Result<Reply, Error>) -> Result<Option<String>, Error> {
    match reply {
        Ok(Reply::Value(value)) => Ok(String::from_utf8(value).ok()),
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() || error.is_denied() => Ok(None),
        Err(error) => Err(error),
    }
}

/// `physical-device`, in hexadecimal.
fn parse(number: &str) -> Option<(u32, u32)> {
    let (major, minor) = number.split_once(':')?;
    Some((
        u32::from_str_radix(major, 16).ok()?,
        u32::from_str_radix(minor, 16).ok()?,
    ))
}

/// How a disk of that mode is used (tools/hotplug/Linux/block-common.sh, `canonicalise_mode`).
fn sharing(mode: &str) -> Sharing {
    match (mode.contains('w'), mode.contains('!')) {
        (false, _) => Sharing::Readers,
        (true, false) => Sharing::Alone,
        (true, true) => Sharing::Unchecked,
    }
}
