//! The known device requests, and which backend each has: what devices need to know of requests, and how they wake them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use xenplug_hotplug::RequestPath;
use xenplug_xenbus::{DeviceKey, DomId, Kind};

use crate::keyed_tasks::{KeyedTasks, Slot};

/// The backend that exists for a request.
#[derive(Default)]
pub(crate) struct RequestState(Mutex<Option<ServedBackend>>);

struct ServedBackend {
    kind: Kind,
    /// The guest's `vm` node, or nothing.
    vm: String,
}

impl RequestState {
    /// Notes the backend that exists for the request.
    pub(crate) fn set_backend(&self, kind: Kind, vm: &str) {
        let vm = vm.to_owned();
        *self.backend() = Some(ServedBackend { kind, vm });
    }

    /// Notes that no backend exists for the request.
    pub(crate) fn clear_backend(&self) {
        *self.backend() = None;
    }

    fn backend(&self) -> MutexGuard<'_, Option<ServedBackend>> {
        // Every change is one assignment, so a poisoned value is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's task, as others see it.
pub(crate) type RequestSlot = Slot<RequestState>;

/// The known device requests.
///
/// In dom0 there are none: libxl creates the devices, and a script calls for each.
#[derive(Default)]
pub(crate) struct RequestIndex(pub(crate) KeyedTasks<RequestPath, RequestState>);

impl RequestIndex {
    /// Wakes the request that a device was made for, if there is one.
    pub(crate) fn wake_for(&self, own: DomId, device: &DeviceKey) {
        if let Some(slot) = RequestPath::of(own, device).and_then(|path| self.0.get(&path)) {
            slot.wake();
        }
    }

    /// Returns the `vm` node of a device's guest as the device's request states it. A driver domain may not read that
    /// node.
    pub(crate) fn vm(&self, own: DomId, device: &DeviceKey) -> Option<String> {
        let vm = self.of_backend(own, device, |backend| backend.vm.clone())?;
        (!vm.is_empty()).then_some(vm)
    }

    /// Tests whether a device was made for a request.
    pub(crate) fn has(&self, own: DomId, device: &DeviceKey) -> bool {
        self.of_backend(own, device, |_| ()).is_some()
    }

    fn of_backend<T>(&self, own: DomId, device: &DeviceKey, read: impl FnOnce(&ServedBackend) -> T) -> Option<T> {
        let slot = self.0.get(&RequestPath::of(own, device)?)?;
        let backend = slot.state.backend();
        backend.as_ref().filter(|backend| backend.kind == device.kind).map(read)
    }
}
