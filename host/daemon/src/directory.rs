//! A device's directory in the store: looked at in one transaction, and written in one that looks once more.
//!
//! This is the only place of the project that writes `hotplug-status` or `hotplug-error`, or removes a directory.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use tracing::warn;
use xenplug_runtime::{Connection, SharedResources};
use xenplug_system::{Platform, network::IfName};
use xenplug_xenbus::{
    BackendPath, DeviceFsm, DeviceInstance, HotplugStatus, Identity, Observation, Phase, REQUEST_NODE, VifType,
    WriteOutcome,
};
use xenplug_xenstore::{Backoff, Client, Error, Path, Reply, Request, Transaction};

mod above;
mod read;

pub(crate) use above::{forget_device_model, has_device_model, remove, remove_above};
pub(crate) use read::{Snapshot, normalize_vm_path};

use crate::{context::DaemonContext, domains::Domains, hotplug::Requests};

/// How often a transaction that meets others' changes is tried.
pub(crate) const RETRY: Backoff = Backoff {
    attempts: 30,
    first: std::time::Duration::from_millis(1),
    most: std::time::Duration::from_millis(50),
};

/// The nodes that say where a device is in its life.
const LOOKED_AT: [&str; 4] = ["state", "online", "hotplug-status", REQUEST_NODE];

/// What tells a device from one that was made anew in its place, for the same machine or for one whose `vm` cannot be
/// read.
#[derive(Debug, Default)]
pub(crate) struct Fingerprint {
    /// What it calls for.
    asked: Vec<(&'static str, Vec<u8>)>,
    /// The number of a card's link: that of one made anew is another, and gone before the new one's state says that it
    /// waits.
    pub(crate) link: Option<u32>,
    /// Whether the directory tells of an earlier failure.
    failed: bool,
}

impl Fingerprint {
    /// Those of a device whose directory says this.
    pub(crate) fn of(link: Option<u32>, nodes: &BTreeMap<String, Vec<u8>>) -> Self {
        let asked = ["params", "mode", "bridge", "mac"];
        let asked = asked.map(|name| nodes.get(name).map(|value| (name, value.clone())));
        Self {
            asked: asked.into_iter().flatten().collect(),
            link,
            failed: nodes.get("hotplug-error").is_some_and(|error| !error.is_empty()),
        }
    }
}

/// What a directory is looked at and written with.
struct StoreContext {
    client: Client,
    system: Platform,
    domains: Arc<Domains>,
    requests: Arc<Requests>,
    shared: Arc<SharedResources>,
}

/// A device's directory.
pub(crate) struct Directory {
    means: StoreContext,
    path: BackendPath,
    vif_type: VifType,
    /// What `hotplug-status` would say of a tap. The node is the card's: a guest's netback waits for what it says.
    of_tap: Cell<HotplugStatus>,
    /// The same as the store's client wants it.
    at: Path,
    vm: Path,
    target: Path,
}

/// What a write did, for the machine.
type Outcome = Result<WriteOutcome, Error>;

impl Directory {
    /// The directory of a device that has come to that phase.
    pub(crate) fn of(host: &DaemonContext, part: DeviceInstance, phase: Phase) -> Self {
        let path = BackendPath {
            backend: host.own,
            key: part.device,
        };
        let means = StoreContext {
            client: host.client.clone(),
            system: host.system.clone(),
            domains: Arc::clone(&host.domains),
            requests: Arc::clone(&host.requests),
            shared: Arc::clone(&host.shared),
        };
        let directory = Self::new(means, path, part.vif_type);
        if phase == Phase::Connected {
            directory.of_tap.set(HotplugStatus::Connected);
        }
        directory
    }

    fn new(means: StoreContext, path: BackendPath, vif_type: VifType) -> Self {
        let node = |text: String| {
            text.parse::<Path>()
                .expect("a path of numbers and a checked kind is a path")
        };
        let domain = path.key.frontend;
        Self {
            at: node(path.to_string()),
            vm: node(format!("/local/domain/{domain}/vm")),
            target: node(format!("/local/domain/{domain}/target")),
            means,
            path,
            vif_type,
            of_tap: Cell::default(),
        }
    }

    fn part(&self) -> DeviceInstance {
        DeviceInstance {
            device: self.path.key.clone(),
            vif_type: self.vif_type,
        }
    }

    fn node(&self, name: &str) -> Path {
        self.at.join(name).expect("node names are checked before they get here")
    }

    /// Publishes a connection, `hotplug-status=connected` last, if the device is still as it must be, and has its `marks`.
    ///
    /// The frontend's nodes come before that: a guest reads `mtu` once, as soon as its backend is connected
    /// (tools/hotplug/Linux/vif-bridge calls `set_mtu` before `success`).
    pub(crate) async fn publish(&self, identity: &Identity, marks: &Fingerprint, connection: &Connection) -> Outcome {
        let mut nodes = connection.backend.clone();
        nodes.push(("hotplug-status".to_owned(), "connected".to_owned()));
        if self.vif_type == VifType::Paravirtual && !connection.frontend.is_empty() {
            self.ask_frontend(identity, &connection.frontend).await;
        }
        let connectable = |seen: &Observation| seen.connectable(identity) && self.is_there(marks.link);
        self.write(nodes, marks, connectable).await
    }

    /// Whether the link of that number is there, if there was one.
    fn is_there(&self, link: Option<u32>) -> bool {
        link.is_none_or(|index| matches!(self.means.system.network.link_by_index(index), Ok(Some(_))))
    }

    /// The number of a card's link, if it has one now.
    pub(crate) fn link(&self) -> Option<u32> {
        let part = self.part();
        let name = part.device.kind.needs_netdev().then(|| part.link())?;
        let link = self.means.system.network.link(&name.parse::<IfName>().ok()?);
        link.ok().flatten().map(|link| link.index)
    }

    /// Publishes why the device of that machine failed, if it still has its `marks`: that tells nothing of one that was
    /// made anew.
    pub(crate) async fn publish_failure(
        &self,
        machine: &DeviceFsm,
        marks: &Fingerprint,
        status: &str,
        error: &str,
    ) -> Outcome {
        let failed = |seen: &Observation| machine.accepts_failure(seen) && self.is_there(marks.link);
        self.write(Self::failure(status, error), marks, failed).await
    }

    fn failure(status: &str, error: &str) -> Vec<(String, String)> {
        vec![
            ("hotplug-error".to_owned(), error.to_owned()),
            ("hotplug-status".to_owned(), status.to_owned()),
        ]
    }

    /// Publishes that nobody serves the device any more, if it says that it is connected. One that is closed is to go.
    pub(crate) async fn abandon(&self, error: &str) -> Outcome {
        let abandoned = |seen: &Observation| seen.present && seen.status == HotplugStatus::Connected && !seen.leaving();
        let failure = Self::failure("error", error);
        self.write(failure, &Fingerprint::default(), abandoned).await
    }

    /// Takes back that the device is connected, and what the kernel would take up, if it has not: the device is to be
    /// connected anew. Where it was `lost`, that is told until it is: the kernel may have been quicker, and no handler runs
    /// for it then.
    pub(crate) async fn retract(&self, identity: &Identity, lost: Option<&str>) -> Outcome {
        self.conditionally(
            &[],
            |seen| seen.withdrawable(identity),
            async |transaction| {
                // blkback opens what it names at any time (linux/drivers/block/xen-blkback/xenbus.c, `backend_changed`).
                self.unwrite(transaction, "physical-device").await?;
                Ok(match lost {
                    Some(error) => self.writes(&Self::failure("error", error)),
                    None => vec![Request::Write(self.node("hotplug-status"), Vec::new())],
                })
            },
        )
        .await
    }

    /// Publishes that nothing is held any more.
    pub(crate) async fn publish_disconnected(&self, identity: &Identity) -> Outcome {
        let nodes = vec![("hotplug-status".to_owned(), "disconnected".to_owned())];
        self.write(nodes, &Fingerprint::default(), |seen| seen.is_of(identity))
            .await
    }

    /// Removes the directory.
    pub(crate) async fn remove(&self, identity: &Identity) -> Outcome {
        self.conditionally(
            &[],
            |seen| seen.is_of(identity) && seen.leaving(),
            async |transaction| remove(transaction, &self.at).await.map(|()| Vec::new()),
        )
        .await
    }

    /// Writes nodes, in this order, if the device is as it must be; an earlier error does not stay beside them. Of a tap's
    /// only the error is written.
    async fn write(
        &self,
        mut nodes: Vec<(String, String)>,
        marks: &Fingerprint,
        allowed: impl Fn(&Observation) -> bool,
    ) -> Outcome {
        let mut status = None;
        if self.vif_type == VifType::Emulated {
            status = nodes
                .pop_if(|(name, _)| name == "hotplug-status")
                .map(|(_, status)| status);
            nodes.retain(|(name, _)| name == "hotplug-error");
        }
        let outcome = self
            .conditionally(&marks.asked, allowed, async |transaction| {
                if marks.failed && self.vif_type == VifType::Paravirtual {
                    self.unwrite(transaction, "hotplug-error").await?;
                }
                Ok(self.writes(&nodes))
            })
            .await?;
        if let (Some(status), WriteOutcome::Done) = (status, outcome) {
            self.of_tap.set(HotplugStatus::parse(Some(&status)));
        }
        Ok(outcome)
    }

    fn writes(&self, nodes: &[(String, String)]) -> Vec<Request> {
        nodes
            .iter()
            .map(|(name, value)| Request::Write(self.node(name), value.clone().into_bytes()))
            .collect()
    }

    /// Removes a node, if it is there.
    async fn unwrite(&self, transaction: &Transaction, name: &str) -> Result<(), Error> {
        match transaction.rm(&self.node(name)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// One transaction: looks whether the device is as it must be and these nodes are the `same`, does something about it
    /// (`act` answers with what is left to ask), and commits. If not, nothing is changed.
    async fn conditionally(
        &self,
        same: &[(&str, Vec<u8>)],
        allowed: impl Fn(&Observation) -> bool,
        act: impl AsyncFn(&Transaction) -> Result<Vec<Request>, Error>,
    ) -> Outcome {
        /// What ends the attempt: the device, or the store.
        enum End {
            Stale,
            Store(Error),
        }
        impl From<Error> for End {
            fn from(error: Error) -> Self {
                Self::Store(error)
            }
        }
        let done = self
            .means
            .client
            .transaction(&RETRY, async |transaction| {
                let mut reads: Vec<Request> = LOOKED_AT.iter().map(|name| Request::Read(self.node(name))).collect();
                reads.push(Request::Read(self.vm.clone()));
                reads.extend(same.iter().map(|(name, _)| Request::Read(self.node(name))));
                let mut replies = transaction.batch(reads).await?;
                let unchanged = replies
                    .split_off(LOOKED_AT.len() + 1)
                    .into_iter()
                    .zip(same)
                    .all(|(now, (_, then))| matches!(now, Ok(Reply::Value(now)) if now == *then));
                let vm = self.vm_of(replies.pop());
                let seen = self.observation(replies, vm)?;
                if !(unchanged && allowed(&seen)) {
                    return Err(End::Stale);
                }
                for reply in transaction.batch(act(transaction).await?).await? {
                    reply?;
                }
                Ok(())
            })
            .await;
        match done {
            Ok(()) => Ok(WriteOutcome::Done),
            Err(End::Stale) => Ok(WriteOutcome::Stale),
            Err(End::Store(error)) => Err(error),
        }
    }

    /// PendingCalls for nodes on the frontend's side: written only into a directory that is there and whose node this domain may
    /// write, which the toolstack decides.
    async fn ask_frontend(&self, identity: &Identity, nodes: &[(String, String)]) {
        let frontend = self.path.frontend_path();
        let Ok(frontend) = frontend.parse::<Path>() else { return };
        let written = self
            .means
            .client
            .transaction(&RETRY, async |transaction| {
                transaction.read(&frontend).await?;
                for (name, value) in nodes {
                    transaction.write(&frontend.join(name)?, value).await?;
                }
                Ok::<_, Error>(())
            })
            .await;
        match written {
            Ok(()) => {}
            // The guest's own directory, or the guest has gone: neither is ours to mend.
            Err(error) if error.is_not_found() || error.is_denied() => {}
            Err(error) => warn!(device = %identity.key, %error, "the frontend was not told"),
        }
    }
}

#[cfg(test)]
mod tests;
