//! The devices that are known, each with its task; waking one, and what the control socket tells of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::Notify;
use xenplug_xenbus::{DeviceFsm, DeviceInstance, DeviceKey, Phase, VifType};

use crate::{
    context::DaemonContext,
    device::{self, ScriptCall},
};

/// A device, as others see it.
pub(crate) struct Entry {
    wake: Notify,
    view: Mutex<View>,
    /// The calls that its task has not taken yet.
    calls: Mutex<VecDeque<ScriptCall>>,
}

/// What is known of a device.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) phase: Phase,
    pub(crate) since: SystemTime,
    pub(crate) vm: Option<String>,
    pub(crate) plugin: Option<String>,
    pub(crate) held: Vec<String>,
    pub(crate) error: Option<String>,
    /// Whether nothing is held for it, nor may be before it looks again.
    pub(crate) at_rest: bool,
    /// Whether it was woken since it last began to look.
    woken: bool,
}

impl Entry {
    fn new() -> Self {
        Self {
            wake: Notify::new(),
            view: Mutex::new(View {
                phase: Phase::Absent,
                since: SystemTime::now(),
                vm: None,
                plugin: None,
                held: Vec::new(),
                error: None,
                // Its task has not said yet.
                at_rest: false,
                woken: false,
            }),
            calls: Mutex::default(),
        }
    }

    /// What is known of it.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        // Views are told, not relied upon.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.view().woken = true;
        self.wake.notify_one();
    }

    /// Waits until something may have changed, or somebody calls for something.
    pub(crate) async fn woken(&self) -> Option<ScriptCall> {
        self.wake.notified().await;
        self.view().woken = false;
        let (ask, more) = {
            let mut calls = self.calls();
            (calls.pop_front(), !calls.is_empty())
        };
        if more {
            self.wake();
        }
        ask
    }

    /// Refuses the calls that nobody will take.
    pub(crate) fn refuse(&self) {
        self.calls().clear();
    }

    fn calls(&self) -> MutexGuard<'_, VecDeque<ScriptCall>> {
        // Every change is one call of the queue's, so a poisoned one is still whole.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All devices that are known.
#[derive(Default)]
pub(crate) struct Registry {
    devices: Mutex<BTreeMap<DeviceInstance, Arc<Entry>>>,
}

impl Registry {
    /// Wakes a device, also one that is not known yet; and the tap of a card, if it is known.
    pub(crate) fn wake(host: &Arc<DaemonContext>, key: &DeviceKey) {
        if let Some(entry) = Self::entry(host, &DeviceInstance::main(key.clone())) {
            entry.wake();
        }
        host.registry
            .wake_all(|part| part.vif_type == VifType::Emulated && part.device == *key);
    }

    /// Passes a call on to a device, also to one that is not known yet. A daemon that ends refuses it.
    pub(crate) fn ask(host: &Arc<DaemonContext>, part: &DeviceInstance, ask: ScriptCall) {
        if host.draining.is_cancelled() {
            return;
        }
        if let Some(entry) = Self::entry(host, part) {
            entry.calls().push_back(ask);
            entry.wake();
        }
    }

    /// The entry of a device. One that is not known yet gets one, and its task, unless the daemon ends.
    fn entry(host: &Arc<DaemonContext>, part: &DeviceInstance) -> Option<Arc<Entry>> {
        let mut devices = host.registry.devices();
        if let Some(entry) = devices.get(part) {
            return Some(Arc::clone(entry));
        }
        if host.draining.is_cancelled() {
            return None;
        }
        let entry = Arc::new(Entry::new());
        devices.insert(part.clone(), Arc::clone(&entry));
        let machine = DeviceFsm::new(host.mode, part.device.kind.clone());
        let task = device::run(Arc::clone(host), part.clone(), Arc::clone(&entry), machine, None);
        host.tasks.spawn_local(task);
        Some(entry)
    }

    /// Takes up a device of an earlier daemon's.
    pub(crate) fn adopt(
        host: &Arc<DaemonContext>,
        part: &DeviceInstance,
        machine: DeviceFsm,
        adopted: device::AdoptedDevice,
    ) {
        let entry = Arc::new(Entry::new());
        entry.wake();
        host.registry.devices().insert(part.clone(), Arc::clone(&entry));
        host.tasks.spawn_local(device::run(
            Arc::clone(host),
            part.clone(),
            entry,
            machine,
            Some(adopted),
        ));
    }

    /// Wakes all known devices of which this is true.
    pub(crate) fn wake_all(&self, which: impl Fn(&DeviceInstance) -> bool) {
        for (part, entry) in &*self.devices() {
            if which(part) {
                entry.wake();
            }
        }
    }

    /// The phase of a device.
    pub(crate) fn phase(&self, part: &DeviceInstance) -> Option<Phase> {
        self.devices().get(part).map(|entry| entry.view().phase)
    }

    /// Whether nothing is held for any of which this is true, nor may be before it looks again.
    pub(crate) fn at_rest(&self, which: impl Fn(&DeviceInstance) -> bool) -> bool {
        let devices = self.devices();
        devices.iter().all(|(part, entry)| !which(part) || entry.view().at_rest)
    }

    /// Forgets a device, unless it was woken meanwhile.
    pub(crate) fn forget(&self, part: &DeviceInstance) -> bool {
        let mut devices = self.devices();
        if devices.get(part).is_some_and(|entry| entry.view().woken) {
            return false;
        }
        devices.remove(part);
        true
    }

    /// All devices, with what is known of each.
    pub(crate) fn views(&self) -> Vec<(DeviceInstance, View)> {
        self.devices()
            .iter()
            .map(|(part, entry)| (part.clone(), entry.view().clone()))
            .collect()
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<DeviceInstance, Arc<Entry>>> {
        // Every change is one call of the map's, so a poisoned one is still whole.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
