//! Looking at a device's directory.

use std::collections::BTreeMap;

use xenplug_system::network::IfName;
use xenplug_xenbus::{HotplugStatus, Identity, Observation, VifType, XenbusState};
use xenplug_xenstore::{Error, Path, Reply, Request};

use super::{Directory, LOOKED_AT};

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

impl Directory {
    /// Looks at the device: where it is in its life.
    pub(crate) async fn read_state(&self) -> Result<Observation, Error> {
        let mut reads: Vec<Request> = LOOKED_AT.iter().map(|name| Request::Read(self.node(name))).collect();
        reads.push(Request::Read(self.vm.clone()));
        let (replies, introduced) = tokio::join!(
            self.means.client.batch(reads),
            self.means.domains.introduced(self.path.key.frontend)
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
    pub(crate) async fn snapshot(&self) -> Result<(Observation, Option<Snapshot>), Error> {
        let (nodes, machines, introduced) = tokio::join!(
            self.means.client.snapshot(&self.at),
            self.machines(),
            self.means.domains.introduced(self.path.key.frontend),
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
        let mut replies = self.means.client.batch(read).await?.into_iter();
        let vm = self.vm_of(replies.next());
        let target = replies.next().and_then(text);
        let mut vms: Vec<String> = vm.iter().cloned().collect();
        if let Some(target) = target.and_then(|target| format!("/local/domain/{target}/vm").parse::<Path>().ok())
            && let Some(target) = text(self.means.client.read(&target).await.map(Reply::Value))
        {
            vms.push(normalize_vm_path(target));
        }
        Ok((vm, vms))
    }

    /// The virtual machine that the reply to reading `vm` names, or else the request that the device was made for.
    pub(super) fn vm_of(&self, reply: Option<Result<Reply, Error>>) -> Option<String> {
        let read = reply.and_then(text).map(normalize_vm_path);
        read.or_else(|| self.means.requests.vm(self.path.backend, &self.path.key))
    }

    /// The virtual machine's name, if this domain may read it (libxl_create.c, `libxl__domain_make`).
    pub(crate) async fn vm_name(&self) -> Option<String> {
        let path = format!("/local/domain/{}/name", self.path.key.frontend)
            .parse::<Path>()
            .ok()?;
        text(self.means.client.read(&path).await.map(Reply::Value))
    }

    /// What the replies to reading [`LOOKED_AT`] say. A device has a `state` for as long as it has a directory: the
    /// toolstack writes both in one transaction (libxl_device.c, `libxl__device_generic_add`).
    pub(super) fn observation(
        &self,
        replies: Vec<Result<Reply, Error>>,
        vm: Option<String>,
    ) -> Result<Observation, Error> {
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
        let gone = self.means.domains.gone(self.path.key.frontend);
        let seen = Observation {
            served: self.means.shared.helpers.serves(&self.path.key),
            ..Observation::read(identity, present, gone, value)
        };
        match self.vif_type {
            VifType::Paravirtual => seen,
            VifType::Emulated => self.as_tap(seen),
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
        let part = self.part();
        if !part.device.kind.needs_netdev() || seen.state != part.device.kind.handler_state() {
            return true;
        }
        part.link()
            .parse::<IfName>()
            .is_ok_and(|name| self.means.system.network.exists(&name))
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
pub(crate) fn normalize_vm_path(vm: String) -> String {
    vm.strip_suffix("-1").map_or_else(|| vm.clone(), str::to_owned)
}
