//! A device as others see it: its view, and the script calls that its task has not taken yet.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use xenplug_xenbus::Phase;

use super::script_calls::ScriptCall;
use crate::keyed_tasks::Slot;

/// State of a device for the status and for other features.
#[derive(Clone, Debug)]
pub(crate) struct DeviceView {
    pub(crate) phase: Phase,
    pub(crate) since: SystemTime,
    pub(crate) vm: Option<String>,
    pub(crate) plugin: Option<String>,
    pub(crate) held: Vec<String>,
    pub(crate) error: Option<String>,
    /// True if nothing is held for the device, nor may be before it is read again.
    pub(crate) at_rest: bool,
}

/// The state that the task of a device shares with others.
pub(crate) struct DeviceEntry {
    view: Mutex<DeviceView>,
    calls: Mutex<VecDeque<ScriptCall>>,
}

/// The wake-up and the shared state of a device's task.
pub(crate) type DeviceSlot = Slot<DeviceEntry>;

impl Default for DeviceEntry {
    fn default() -> Self {
        Self {
            view: Mutex::new(DeviceView {
                phase: Phase::Absent,
                since: SystemTime::now(),
                vm: None,
                plugin: None,
                held: Vec::new(),
                error: None,
                // Unknown until the task has begun.
                at_rest: false,
            }),
            calls: Mutex::default(),
        }
    }
}

impl DeviceEntry {
    pub(crate) fn view(&self) -> MutexGuard<'_, DeviceView> {
        // Nothing but messages relies on a view.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push_call(&self, call: ScriptCall) {
        self.calls().push_back(call);
    }

    /// Drops the calls that nobody will take; their scripts learn that the daemon ends.
    pub(super) fn drop_calls(&self) {
        self.calls().clear();
    }

    fn calls(&self) -> MutexGuard<'_, VecDeque<ScriptCall>> {
        // Every change is one call of the queue, so a poisoned queue is still whole.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the device may have changed, or a script calls.
pub(super) async fn next_call(slot: &DeviceSlot) -> Option<ScriptCall> {
    slot.woken().await;
    let (call, more) = {
        let mut calls = slot.state.calls();
        (calls.pop_front(), !calls.is_empty())
    };
    if more {
        slot.wake();
    }
    call
}
