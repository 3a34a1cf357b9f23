//! A device's directory in the store: looked at in one transaction, and written in one that looks once more.
//!
//! This is the only place of the project that writes `hotplug-status` or `hotplug-error`, or removes a directory.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use tracing::warn;
use xenplug_runtime::{Claims, Connection};
use xenplug_system::{System, network::IfName};
use xenplug_xenbus::{
    BackendPath, DomId, HotplugStatus, Identity, MADE_FOR, Machine, Observation, Part, Phase, Published, Role,
    XenbusState,
};
use xenplug_xenstore::{Backoff, Client, Error, Path, Reply, Request, Transaction};

use crate::{domains::Domains, host::Host, hotplug::Requests};

/// How often a transaction that meets others' changes is tried.
pub(crate) const RETRY: Backoff = Backoff {
    attempts: 30,
    first: std::time::Duration::from_millis(1),
    most: std::time::Duration::from_millis(50),
};

/// The nodes that say where a device is in its life.
const LOOKED_AT: [&str; 4] = ["state", "online", "hotplug-status", MADE_FOR];

/// What a handler works on.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The nodes of the device's directory, as they were at one moment.
    pub(crate) nodes: BTreeMap<String, Vec<u8>>,
    /// The `vm` node of the frontend domain, and of the domain it is a stub for.
    pub(crate) vms: Vec<String>,
    /// Whether xenstored knows the frontend domain.
    pub(crate) introduced: bool,
}

/// What tells a device from one that was made anew in its place, for the same machine or for one whose `vm` cannot be
/// read.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// What it asks for.
    asked: Vec<(&'static str, Vec<u8>)>,
    /// The number of a card's link: that of one made anew is another, and gone before the new one's state says that it
    /// waits.
    pub(crate) link: Option<u32>,
    /// Whether the directory tells of an earlier failure.
    failed: bool,
}

impl Marks {
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

/// A device's directory.
pub(crate) struct Directory {
    client: Client,
    system: System,
    domains: Arc<Domains>,
    requests: Arc<Requests>,
    claims: Arc<Claims>,
    path: BackendPath,
    role: Role,
    /// What `hotplug-status` would say of a tap. The node is the card's: a guest's netback waits for what it says.
    of_tap: Cell<HotplugStatus>,
    /// The same as the store's client wants it.
    at: Path,
    vm: Path,
    target: Path,
}

/// What a write did, for the machine.
type Outcome = Result<Published, Error>;

impl Directory {
    /// The directory of a device that has come to that phase.
    pub(crate) fn of(host: &Host, part: Part, phase: Phase) -> Self {
        let path = BackendPath {
            backend: host.own,
            key: part.device,
        };
        let (client, system) = (host.client.clone(), host.system.clone());
        let (domains, requests) = (Arc::clone(&host.domains), Arc::clone(&host.requests));
        let claims = Arc::clone(&host.claims);
        let directory = Self::new(client, system, domains, requests, claims, path, part.role);
        if phase == Phase::Connected {
            directory.of_tap.set(HotplugStatus::Connected);
        }
        directory
    }

    fn new(
        client: Client,
        system: System,
        domains: Arc<Domains>,
        requests: Arc<Requests>,
        claims: Arc<Claims>,
        path: BackendPath,
        role: Role,
    ) -> Self {
        let node = |text: String| {
            text.parse::<Path>()
                .expect("a path of numbers and a checked kind is a path")
        };
        let domain = path.key.frontend;
        Self {
            at: node(path.to_string()),
            vm: node(format!("/local/domain/{domain}/vm")),
            target: node(format!("/local/domain/{domain}/target")),
            client,
            system,
            domains,
            requests,
            claims,
            path,
            role,
            of_tap: Cell::default(),
        }
    }

    fn node(&self, name: &str) -> Path {
        self.at.join(name).expect("node names are checked before they get here")
    }

    /// Looks at the device: where it is in its life.
    pub(crate) async fn look(&self) -> Result<Observation, Error> {
        let mut reads: Vec<Request> = LOOKED_AT.iter().map(|name| Request::Read(self.node(name))).collect();
        reads.push(Request::Read(self.vm.clone()));
        let (replies, introduced) = tokio::join!(
            self.client.batch(reads),
            self.domains.introduced(self.path.key.frontend)
        );
        introduced?;
        let mut replies = replies?;
        let vm = self.vm_of(replies.pop());
        let mut observation = self.observation(replies, vm)?;
        observation.netdev = self.netdev(&observation);
        Ok(observation)
    }

    /// Looks at the device, and takes the snapshot that a handler works on. `None` for the snapshot of a directory that
    /// is not there.
    pub(crate) async fn examine(&self) -> Result<(Observation, Option<Snapshot>), Error> {
        let (nodes, machines, introduced) = tokio::join!(
            self.client.snapshot(&self.at),
            self.machines(),
            self.domains.introduced(self.path.key.frontend),
        );
        let (nodes, (vm, vms), introduced) = (nodes?, machines?, introduced?);
        let value = |name: &str| {
            let value = nodes.as_ref().and_then(|nodes| nodes.get(name));
            value
                .and_then(|value| std::str::from_utf8(value).ok())
                .map(str::to_owned)
        };
        let mut observation = self.observe(nodes.is_some(), vm, value);
        observation.netdev = self.netdev(&observation);
        Ok((observation, nodes.map(|nodes| Snapshot { nodes, vms, introduced })))
    }

    /// The `vm` node of the frontend domain; and all that are the same machine: it, and that of the domain it is a stub
    /// for.
    async fn machines(&self) -> Result<(Option<String>, Vec<String>), Error> {
        let read = vec![Request::Read(self.vm.clone()), Request::Read(self.target.clone())];
        let mut replies = self.client.batch(read).await?.into_iter();
        let vm = self.vm_of(replies.next());
        let target = replies.next().and_then(text);
        let mut vms: Vec<String> = vm.iter().cloned().collect();
        if let Some(target) = target.and_then(|target| format!("/local/domain/{target}/vm").parse::<Path>().ok())
            && let Some(target) = text(self.client.read(&target).await.map(Reply::Value))
        {
            vms.push(machine(target));
        }
        Ok((vm, vms))
    }

    /// The virtual machine that the reply to reading `vm` names, or else the request that the device was made for.
    fn vm_of(&self, reply: Option<Result<Reply, Error>>) -> Option<String> {
        let read = reply.and_then(text).map(machine);
        read.or_else(|| self.requests.vm(self.path.backend, &self.path.key))
    }

    /// The virtual machine's name, if this domain may read it (libxl_create.c, `libxl__domain_make`).
    pub(crate) async fn vm_name(&self) -> Option<String> {
        let path = format!("/local/domain/{}/name", self.path.key.frontend)
            .parse::<Path>()
            .ok()?;
        text(self.client.read(&path).await.map(Reply::Value))
    }

    /// What the replies to reading [`LOOKED_AT`] say. A device has a `state` for as long as it has a directory: the
    /// toolstack writes both in one transaction (libxl_device.c, `libxl__device_generic_add`).
    fn observation(&self, replies: Vec<Result<Reply, Error>>, vm: Option<String>) -> Result<Observation, Error> {
        let present = match replies.first() {
            Some(Err(error)) if !error.is_not_found() => return Err(error.clone()),
            reply => matches!(reply, Some(Ok(_))),
        };
        let values: Vec<Option<String>> = replies.into_iter().map(text).collect();
        Ok(self.observe(present, vm, |name| {
            LOOKED_AT
                .iter()
                .position(|known| *known == name)
                .and_then(|at| values.get(at).cloned().flatten())
        }))
    }

    fn observe(&self, present: bool, vm: Option<String>, value: impl Fn(&str) -> Option<String>) -> Observation {
        let identity = Identity {
            key: self.path.key.clone(),
            vm,
        };
        let gone = self.domains.gone(self.path.key.frontend);
        let seen = Observation {
            served: self.claims.services.serve(&self.path.key),
            ..Observation::read(identity, present, gone, value)
        };
        match self.role {
            Role::Paravirtual => seen,
            Role::Emulated => self.as_tap(seen),
        }
    }

    /// A card's directory as that of its tap, which has no state of its own: it may come as soon as the card waits to be
    /// connected, and for as long as the card is not on its way out.
    fn as_tap(&self, seen: Observation) -> Observation {
        use XenbusState::{Closed, Initialising};
        if !seen.present || seen.state == Initialising {
            // Another directory, of which nothing was said yet.
            self.of_tap.set(HotplugStatus::None);
        }
        Observation {
            state: match seen.state {
                Initialising | Closed => seen.state,
                _ => self.path.key.kind.handler_state(),
            },
            status: self.of_tap.get(),
            ..seen
        }
    }

    /// Whether the link is there that the handler needs: netback announces state 2 before it makes it
    /// (linux/drivers/net/xen-netback/xenbus.c).
    fn netdev(&self, seen: &Observation) -> bool {
        let part = Part {
            device: self.path.key.clone(),
            role: self.role,
        };
        if !part.device.kind.needs_netdev() || seen.state != part.device.kind.handler_state() {
            return true;
        }
        part.link()
            .parse::<IfName>()
            .is_ok_and(|name| self.system.network.exists(&name))
    }

    /// Publishes a connection, `hotplug-status=connected` last, if the device is still as it must be, and has its `marks`.
    ///
    /// The frontend's nodes come before that: a guest reads `mtu` once, as soon as its backend is connected
    /// (tools/hotplug/Linux/vif-bridge calls `set_mtu` before `success`).
    pub(crate) async fn publish(&self, identity: &Identity, marks: &Marks, connection: &Connection) -> Outcome {
        let mut nodes = connection.backend.clone();
        nodes.push(("hotplug-status".to_owned(), "connected".to_owned()));
        if self.role == Role::Paravirtual && !connection.frontend.is_empty() {
            self.ask_frontend(identity, &connection.frontend).await;
        }
        let connectable = |seen: &Observation| seen.connectable(identity) && self.is_there(marks.link);
        self.write(nodes, marks, connectable).await
    }

    /// Whether the link of that number is there, if there was one.
    fn is_there(&self, link: Option<u32>) -> bool {
        link.is_none_or(|index| matches!(self.system.network.link_by_index(index), Ok(Some(_))))
    }

    /// The number of a card's link, if it has one now.
    pub(crate) fn link(&self) -> Option<u32> {
        let part = Part {
            device: self.path.key.clone(),
            role: self.role,
        };
        let name = part.device.kind.needs_netdev().then(|| part.link())?;
        let link = self.system.network.link(&name.parse::<IfName>().ok()?);
        link.ok().flatten().map(|link| link.index)
    }

    /// Publishes why the device of that machine failed, if it still has its `marks`: that tells nothing of one that was
    /// made anew.
    pub(crate) async fn publish_failure(&self, machine: &Machine, marks: &Marks, status: &str, error: &str) -> Outcome {
        let failed = |seen: &Observation| machine.failed(seen) && self.is_there(marks.link);
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
        self.write(failure, &Marks::default(), abandoned).await
    }

    /// Takes back that the device is connected, and what the kernel would take up, if it has not: the device is to be
    /// connected anew. Where it was `lost`, that is told until it is: the kernel may have been quicker, and no handler runs
    /// for it then.
    pub(crate) async fn retract(&self, identity: &Identity, lost: Option<&str>) -> Outcome {
        self.conditionally(
            &[],
            |seen| seen.retractable(identity),
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
        self.write(nodes, &Marks::default(), |seen| seen.is_of(identity)).await
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
        marks: &Marks,
        allowed: impl Fn(&Observation) -> bool,
    ) -> Outcome {
        let mut status = None;
        if self.role == Role::Emulated {
            status = nodes
                .pop_if(|(name, _)| name == "hotplug-status")
                .map(|(_, status)| status);
            nodes.retain(|(name, _)| name == "hotplug-error");
        }
        let outcome = self
            .conditionally(&marks.asked, allowed, async |transaction| {
                if marks.failed && self.role == Role::Paravirtual {
                    self.unwrite(transaction, "hotplug-error").await?;
                }
                Ok(self.writes(&nodes))
            })
            .await?;
        if let (Some(status), Published::Done) = (status, outcome) {
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
            Ok(()) => Ok(Published::Done),
            Err(End::Stale) => Ok(Published::Stale),
            Err(End::Store(error)) => Err(error),
        }
    }

    /// Asks for nodes on the frontend's side: written only into a directory that is there and whose node this domain may
    /// write, which the toolstack decides.
    async fn ask_frontend(&self, identity: &Identity, nodes: &[(String, String)]) {
        let frontend = self.path.frontend_path();
        let Ok(frontend) = frontend.parse::<Path>() else { return };
        let written = self
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

/// Removes a backend's directory, and what is empty above it.
pub(crate) async fn remove(transaction: &Transaction, backend: &Path) -> Result<(), Error> {
    transaction.rm(backend).await?;
    remove_above(transaction, backend).await
}

/// Removes what is empty above a backend's directory that has gone, as far as this domain may, up to and including
/// `backend/<kind>`: whoever needs that makes it again (libxl_internal.c, `libxl__xs_path_cleanup`).
pub(crate) async fn remove_above(transaction: &Transaction, backend: &Path) -> Result<(), Error> {
    let mut above = backend.parent();
    for _ in 0..2 {
        let Some(directory) = above else { break };
        match transaction.directory(&directory).await {
            Ok(children) if children.is_empty() => match transaction.rm(&directory).await {
                Ok(()) => {}
                // In a driver domain of libxl's these belong to the toolstack.
                Err(error) if error.is_denied() => break,
                Err(error) => return Err(error),
            },
            _ => break,
        }
        above = directory.parent();
    }
    Ok(())
}

/// Whether the toolstack has started a QEMU here for a guest: a device model, or one for its disks (libxl_dm.c, `pidpath`).
pub(crate) async fn has_device_model(host: &Host, guest: DomId) -> Result<bool, Error> {
    // A driver domain has none but those of xl devd, in whose place this is.
    if host.own != DomId(0) {
        return Ok(false);
    }
    for node in [
        format!("/local/domain/{guest}/image/device-model-pid"),
        format!("/local/domain/0/libxl/{guest}/qdisk-backend-pid"),
    ] {
        match host.client.read(&node.parse()?).await {
            Err(error) if error.is_not_found() => {}
            found => return found.map(|_| true),
        }
    }
    Ok(false)
}

/// Removes what a guest's QEMU wrote about itself (`xenstore_record_dm_state` in QEMU's hw/xen/xen-operations.c; libxl_dm.c,
/// `libxl__destroy_qemu_xenpv_backend`, does the same), unless it is of the toolstack's.
pub(crate) async fn forget_device_model(host: &Host, guest: DomId) -> Result<(), Error> {
    if has_device_model(host, guest).await? {
        return Ok(());
    }
    let node = format!("/local/domain/{}/device-model/{guest}", host.own);
    match host.client.rm(&node.parse()?).await {
        Err(error) if error.is_not_found() || error.is_denied() => Ok(()),
        done => done,
    }
}

/// A reply's value as text; an absent node, or one that may not be read, is none.
fn text(reply: Result<Reply, Error>) -> Option<String> {
    match reply {
        Ok(Reply::Value(value)) => String::from_utf8(value).ok(),
        _ => None,
    }
}

/// The value of a `vm` node. A save or a local migration appends "-1" to it for a moment
/// (tools/hotplug/Linux/block-common.sh, `same_vm`).
pub(crate) fn machine(vm: String) -> String {
    vm.strip_suffix("-1").map_or_else(|| vm.clone(), str::to_owned)
}

#[cfg(test)]
mod tests;
