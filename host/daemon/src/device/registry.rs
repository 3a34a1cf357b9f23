//! The known devices, each with its task.

use std::sync::Arc;

use xenplug_xenbus::{DeviceFsm, DeviceInstance, DeviceKey, Phase, VifType};

use super::{
    context::DeviceContext,
    driver::{self, AdoptedDevice},
    entry::{DeviceEntry, DeviceSlot, DeviceView},
    script_calls::ScriptCall,
};
use crate::keyed_tasks::KeyedTasks;

/// The known devices, each with its task.
pub(crate) struct Registry {
    context: Arc<DeviceContext>,
    devices: Arc<KeyedTasks<DeviceInstance, DeviceEntry>>,
}

impl Registry {
    pub(crate) fn new(context: Arc<DeviceContext>) -> Self {
        Self {
            context,
            devices: Arc::default(),
        }
    }

    /// Wakes a device, also one that is not known yet; and the emulated instance of a vif, if it is known.
    pub(crate) fn wake(&self, key: &DeviceKey) {
        if let Some(slot) = self.slot(&DeviceInstance::main(key.clone())) {
            slot.wake();
        }
        self.wake_where(|instance| instance.vif_type == VifType::Emulated && instance.device == *key);
    }

    /// Wakes all known devices that match.
    pub(crate) fn wake_where(&self, matches: impl Fn(&DeviceInstance) -> bool) {
        self.devices.wake_where(matches);
    }

    /// Passes a script call to a device, also to one that is not known yet. A daemon that ends drops the call.
    pub(crate) fn call(&self, instance: &DeviceInstance, call: ScriptCall) {
        if self.is_draining() {
            return;
        }
        if let Some(slot) = self.slot(instance) {
            slot.state.push_call(call);
            slot.wake();
        }
    }

    /// Starts the task of a device that an earlier daemon left.
    pub(super) fn adopt(&self, instance: &DeviceInstance, fsm: DeviceFsm, adopted: AdoptedDevice) {
        let slot = self
            .devices
            .get_or_start(instance, |slot| self.start(instance, slot, fsm, Some(adopted)));
        slot.wake();
    }

    pub(crate) fn phase(&self, instance: &DeviceInstance) -> Option<Phase> {
        self.devices.get(instance).map(|slot| slot.state.view().phase)
    }

    /// Tests whether nothing is held for any device that matches, nor may be before it is read again.
    pub(crate) fn at_rest(&self, matches: impl Fn(&DeviceInstance) -> bool) -> bool {
        self.devices.all(matches, |entry| entry.view().at_rest)
    }

    pub(crate) fn views(&self) -> Vec<(DeviceInstance, DeviceView)> {
        self.devices
            .map(|instance, entry| (instance.clone(), entry.view().clone()))
    }

    /// Returns the slot of a device. A device that is not known gets one, and its task, unless the daemon ends.
    fn slot(&self, instance: &DeviceInstance) -> Option<Arc<DeviceSlot>> {
        if self.is_draining() {
            return self.devices.get(instance);
        }
        let start = |slot| {
            let fsm = DeviceFsm::new(self.context.daemon.mode, instance.device.kind.clone());
            self.start(instance, slot, fsm, None);
        };
        Some(self.devices.get_or_start(instance, start))
    }

    fn start(&self, instance: &DeviceInstance, slot: Arc<DeviceSlot>, fsm: DeviceFsm, adopted: Option<AdoptedDevice>) {
        let (devices, key) = (Arc::clone(&self.devices), instance.clone());
        let forget = move || devices.forget(&key);
        let task = driver::run(Arc::clone(&self.context), instance.clone(), slot, fsm, adopted, forget);
        self.context.daemon.tasks.spawn_local(task);
    }

    fn is_draining(&self) -> bool {
        self.context.daemon.draining.is_cancelled()
    }
}
