//! Reads of a device's backend directory: `read_state`, the light one, and `snapshot`, the full one.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use xenplug_runtime::SharedResources;
use xenplug_system::{Platform, network::IfName};
use xenplug_xenbus::{
    BackendPath, DeviceInstance, HotplugStatus, Identity, Observation, Phase, REQUEST_NODE, VifType, XenbusState,
};
use xenplug_xenstore::{Backoff, Client, Error, Path, Reply, Request};

use super::context::DeviceContext;
use crate::{domains::Domains, request_index::RequestIndex};

/// The retries of a transaction that conflicts with other writers.
pub(crate) const RETRY: Backoff = Backoff {
    attempts: 30,
    first: std::time::Duration::from_millis(1),
    most: std::time::Duration::from_millis(50),
};

/// The nodes that decide where a device is in its life.
pub(super) const STATE_NODES: [&str; 4] = ["state", "online", "hotplug-status", REQUEST_NODE];

/// Fingerprint that distinguishes a device from its recreated successor, which may have the same `vm`, or one that cannot
/// be read.
#[derive(Debug, Default)]
pub(super) struct Fingerprint {
    /// The nodes that say what the device wants.
    pub(super) wanted: Vec<(&'static str, Vec<u8>)>,
    /// The index of a vif's link. A recreated vif has another link, and the old one is gone before the new vif's state
    /// says that it waits.
    pub(super) link: Option<u32>,
    /// True if the directory tells of an earlier failure.
    pub(super) failed: bool,
}

impl Fingerprint {
    /// Takes the fingerprint of a directory's nodes.
    pub(super) fn of(link: Option<u32>, nodes: &BTreeMap<String, Vec<u8>>) -> Self {
        let wanted = ["params", "mode", "bridge", "mac"];
        let wanted = wanted.map(|name| nodes.get(name).map(|value| (name, value.clone())));
        Self {
            wanted: wanted.into_iter().flatten().collect(),
            link,
            failed: nodes.get("hotplug-error").is_some_and(|error| !error.is_empty()),
        }
    }
}

/// Input of a handler.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// The nodes of the device's directory at one moment.
    pub(super) nodes: BTreeMap<String, Vec<u8>>,
    /// The `vm` node of the frontend domain, and that of the domain for which it is a stub domain.
    pub(super) vms: Vec<String>,
    /// True if xenstored knows the frontend domain.
    pub(super) introduced: bool,
}

/// Everything that reads and writes of a directory need.
pub(super) struct StoreContext {
    pub(super) store: Client,
    pub(super) platform: Platform,
    pub(super) domains: Arc<Domains>,
    pub(super) requests: Arc<RequestIndex>,
    pub(super) shared: Arc<SharedResources>,
}

/// A device's backend directory.
pub(crate) struct Directory {
    pub(super) context: StoreContext,
    pub(super) backend: BackendPath,
    pub(super) vif_type: VifType,
    /// The `hotplug-status` of an emulated vif. The node itself is the paravirtual vif's: netback waits for its value.
    pub(super) emulated_status: Cell<HotplugStatus>,
    /// `backend` as the store's client takes it.
    pub(super) path: Path,
    pub(super) vm_path: Path,
    target_path: Path,
}

impl Directory {
    /// The directory of a device that has reached a phase.
    pub(crate) fn of(devices: &DeviceContext, instance: DeviceInstance, phase: Phase) -> Self {
        let backend = BackendPath {
            backend: devices.daemon.own,
            key: instance.device,
        };
        let context = StoreContext {
            store: devices.daemon.store.clone(),
            platform: devices.daemon.platform.clone(),
            domains: Arc::clone(&devices.domains),
            requests: Arc::clone(&devices.requests),
            shared: Arc::clone(&devices.shared),
        };
        let directory = Self::new(context, backend, instance.vif_type);
        if phase == Phase::Connected {
            directory.emulated_status.set(HotplugStatus::Connected);
        }
        directory
    }

    pub(super) fn new(context: StoreContext, backend: BackendPath, vif_type: VifType) -> Self {
        let path = |text: String| {
            text.parse::<Path>()
                .expect("a path of numbers and a checked kind is a path")
        };
        let domain = backend.key.frontend;
        Self {
            path: path(backend.to_string()),
            vm_path: path(format!("/local/domain/{domain}/vm")),
            target_path: path(format!("/local/domain/{domain}/target")),
            context,
            backend,
            vif_type,
            emulated_status: Cell::default(),
        }
    }

    pub(super) fn node(&self, name: &str) -> Path {
        self.path
            .join(name)
            .expect("node names are checked before they get here")
    }

    fn instance(&self) -> DeviceInstance {
        DeviceInstance {
            device: self.backend.key.clone(),
            vif_type: self.vif_type,
        }
    }

    /// Reads where the device is in its life.
    pub(super) async fn read_state(&self) -> Result<Observation, Error> {
        let mut reads: Vec<Request> = STATE_NODES.iter().map(|name| Request::Read(self.node(name))).collect();
        reads.push(Request::Read(self.vm_path.clone()));
        let (replies, introduced) = tokio::join!(
            self.context.store.batch(reads),
            self.context.domains.introduced(self.backend.key.frontend)
        );
        introduced?;
        let mut replies = replies?;
        let vm = self.vm_of(replies.pop());
        let mut observation = self.observation(replies, vm)?;
        observation.netdev = self.has_netdev(&observation);
        Ok(observation)
    }

    /// Reads where the device is in its life, and a handler's input. There is no input without a directory.
    pub(super) async fn snapshot(&self) -> Result<(Observation, Option<Snapshot>), Error> {
        let (nodes, vms, introduced) = tokio::join!(
            self.context.store.snapshot(&self.path),
            self.vms(),
            self.context.domains.introduced(self.backend.key.frontend),
        );
        let (nodes, (vm, vms), introduced) = (nodes?, vms?, introduced?);
        let value = |name: &str| {
            let value = nodes.as_ref().and_then(|nodes| nodes.get(name));
            value
                .and_then(|value| std::str::from_utf8(value).ok())
                .map(str::to_owned)
        };
        let mut observation = self.observe(nodes.is_some(), vm, value);
        observation.netdev = self.has_netdev(&observation);
        Ok((observation, nodes.map(|nodes| Snapshot { nodes, vms, introduced })))
    }

    /// Reads the `vm` node of the frontend domain, and lists it with that of the domain for which it is a stub domain:
    /// both are the same virtual machine.
    async fn vms(&self) -> Result<(Option<String>, Vec<String>), Error> {
        let reads = vec![
            Request::Read(self.vm_path.clone()),
            Request::Read(self.target_path.clone()),
        ];
        let mut replies = self.context.store.batch(reads).await?.into_iter();
        let vm = self.vm_of(replies.next());
        let target = replies.next().and_then(text);
        let mut vms: Vec<String> = vm.iter().cloned().collect();
        if let Some(target) = target.and_then(|target| format!("/local/domain/{target}/vm").parse::<Path>().ok())
            && let Some(target) = text(self.context.store.read(&target).await.map(Reply::Value))
        {
            vms.push(normalize_vm_path(target));
        }
        Ok((vm, vms))
    }

    /// Takes the virtual machine from the reply to a read of its `vm` node, else from the device's request.
    pub(super) fn vm_of(&self, reply: Option<Result<Reply, Error>>) -> Option<String> {
        let read = reply.and_then(text).map(normalize_vm_path);
        read.or_else(|| self.context.requests.vm(self.backend.backend, &self.backend.key))
    }

    /// Reads the virtual machine's name, if this domain may (libxl_create.c, `libxl__domain_make`).
    pub(super) async fn vm_name(&self) -> Option<String> {
        let path = format!("/local/domain/{}/name", self.backend.key.frontend)
            .parse::<Path>()
            .ok()?;
        text(self.context.store.read(&path).await.map(Reply::Value))
    }

    /// Interprets the replies to reads of [`STATE_NODES`]. A device has a `state` for as long as it has a directory: the
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
            STATE_NODES
                .iter()
                .position(|known| *known == name)
                .and_then(|at| values.get(at).cloned().flatten())
        }))
    }

    fn observe(&self, present: bool, vm: Option<String>, value: impl Fn(&str) -> Option<String>) -> Observation {
        let key = &self.backend.key;
        let identity = Identity { key: key.clone(), vm };
        let gone = self.context.domains.gone(key.frontend);
        let seen = Observation {
            served: self.context.shared.helpers.serves(key),
            ..Observation::read(identity, present, gone, value)
        };
        match self.vif_type {
            VifType::Paravirtual => seen,
            VifType::Emulated => self.as_emulated(seen),
        }
    }

    /// Turns the observation of a vif's directory into that of its emulated instance, which has no state of its own. That
    /// instance may be connected from when the vif waits to be connected until it closes.
    fn as_emulated(&self, seen: Observation) -> Observation {
        use XenbusState::{Closed, Initialising};
        if !seen.present || seen.state == Initialising {
            // This is another directory, for which no status was published yet.
            self.emulated_status.set(HotplugStatus::None);
        }
        Observation {
            state: match seen.state {
                Initialising | Closed => seen.state,
                _ => self.backend.key.kind.handler_state(),
            },
            status: self.emulated_status.get(),
            ..seen
        }
    }

    /// Tests whether the link exists that the handler needs: netback announces state 2 before it creates its link
    /// (linux/drivers/net/xen-netback/xenbus.c).
    fn has_netdev(&self, seen: &Observation) -> bool {
        let instance = self.instance();
        let kind = &instance.device.kind;
        if !kind.needs_netdev() || seen.state != kind.handler_state() {
            return true;
        }
        let name = instance.link().parse::<IfName>();
        name.is_ok_and(|name| self.context.platform.network.exists(&name))
    }

    /// Returns the index of a vif's link, if it has one now.
    pub(super) fn link(&self) -> Option<u32> {
        let instance = self.instance();
        let name = instance.device.kind.needs_netdev().then(|| instance.link())?;
        let link = self.context.platform.network.link(&name.parse::<IfName>().ok()?);
        link.ok().flatten().map(|link| link.index)
    }
}

/// Returns a reply's value as text; `None` for a node that is absent or may not be read.
fn text(reply: Result<Reply, Error>) -> Option<String> {
    match reply {
        Ok(Reply::Value(value)) => String::from_utf8(value).ok(),
        _ => None,
    }
}

/// Normalizes the value of a `vm` node. A save or a local migration appends "-1" to it for a moment
/// (tools/hotplug/Linux/block-common.sh, `same_vm`).
pub(crate) fn normalize_vm_path(vm: String) -> String {
    vm.strip_suffix("-1").map_or_else(|| vm.clone(), str::to_owned)
}
