//! One event of one device: the state that a fresh instance runs on, and its budgets.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use xenplug_system::Platform;

use crate::{Device, DeviceResources, Grants, Limits, SharedResources, capability::CallError, shared::Changes};

/// What all events of a plugin share.
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) system: Platform,
    pub(crate) grants: Grants,
    pub(crate) shared: Arc<SharedResources>,
    pub(crate) config: HashMap<String, String>,
    pub(crate) limits: Limits,
}

/// The device that an event is about. `describe` is about none.
pub(crate) struct Subject {
    pub(crate) device: Arc<Device>,
    pub(crate) resources: DeviceResources,
}

/// Tells a running event to stop.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Cancelled>);

#[derive(Debug, Default)]
struct Cancelled {
    flag: AtomicBool,
    /// Wakes the event where it waits for other devices.
    wakes: Mutex<Option<Changes>>,
}

impl Cancel {
    /// Stops the event at its next host call or tick of the clock, or where it waits for other devices.
    pub fn cancel(&self) {
        self.0.flag.store(true, Ordering::SeqCst);
        if let Some(changes) = &*self.wakes() {
            changes.notify();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.flag.load(Ordering::SeqCst)
    }

    fn wakes(&self) -> MutexGuard<'_, Option<Changes>> {
        self.0.wakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an event was stopped by the host.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Stop {
    #[error("took longer than its deadline")]
    Deadline,
    #[error("was stopped, as the device went away or nobody waits for it any longer")]
    Cancelled,
    #[error("made more host calls than it may")]
    Calls,
    #[error("has more handles open than it may")]
    Handles,
    #[error("acquired more than a device may hold")]
    Effects,
}

/// The limits of memory and tables, and whether the guest has come to them: one that then traps says nothing of why.
pub(crate) struct Memory {
    limits: StoreLimits,
    pub(crate) refused: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, now: usize, wanted: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let granted = self.limits.memory_growing(now, wanted, maximum)?;
        self.refused |= !granted;
        Ok(granted)
    }

    fn table_growing(&mut self, now: usize, wanted: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.limits.table_growing(now, wanted, maximum)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

/// The state of one event.
pub(crate) struct Event {
    pub(crate) context: Arc<Context>,
    pub(crate) table: ResourceTable,
    pub(crate) memory: Memory,
    pub(crate) subject: Option<Subject>,
    pub(crate) log_lines: u32,
    pub(crate) denials: u32,
    pub(crate) deadline: Instant,
    calls: u32,
    cancel: Cancel,
    wasi: Option<WasiCtx>,
}

impl Event {
    pub(crate) fn new(context: Arc<Context>, subject: Option<Subject>, cancel: Cancel) -> Self {
        *cancel.wakes() = Some(context.shared.changes.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(Limits::HANDLES);
        let memory = StoreLimitsBuilder::new()
            .memory_size(context.limits.memory)
            .table_elements(Limits::TABLE_ELEMENTS)
            .memories(Limits::MEMORIES as usize)
            .tables(Limits::TABLES as usize)
            .instances(Limits::INSTANCES as usize)
            .build();
        let memory = Memory {
            limits: memory,
            refused: false,
        };
        Self {
            table,
            memory,
            subject,
            log_lines: 0,
            denials: 0,
            deadline: Instant::now() + context.limits.deadline,
            calls: 0,
            cancel,
            wasi: None,
            context,
        }
    }

    /// Counts a host call, and stops the event if it may not go on.
    pub(crate) fn call(&mut self) -> Result<(), CallError> {
        self.calls += 1;
        if self.calls > self.context.limits.calls {
            return Err(CallError::Trap(Stop::Calls.into()));
        }
        self.may_go_on().map_err(|stop| CallError::Trap(stop.into()))
    }

    pub(crate) fn may_go_on(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            Err(Stop::Cancelled)
        } else if Instant::now() >= self.deadline {
            Err(Stop::Deadline)
        } else {
            Ok(())
        }
    }

    /// Waits, with the event's deadline, until an attempt yields something; tried again after changes by other devices.
    pub(crate) fn wait<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Result<T, CallError> {
        let stopped = |stop: Stop| CallError::Trap(stop.into());
        let found = self
            .context
            .shared
            .changes
            .wait(self.deadline, || match self.may_go_on() {
                Ok(()) => attempt().map(Ok),
                Err(stop) => Some(Err(stop)),
            });
        found.unwrap_or(Err(Stop::Deadline)).map_err(stopped)
    }

    /// The device, or a denial: `describe` has none.
    pub(crate) fn subject(&mut self) -> Result<&mut Subject, CallError> {
        self.subject
            .as_mut()
            .ok_or_else(|| CallError::denied("there is no device in describe"))
    }
}

impl WasiView for Event {
    /// WASI with nothing in it: no arguments, environment, files or sockets. What toolchains import unasked can be
    /// linked, and finds an empty world.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self
            .wasi
            .get_or_insert_with(|| WasiCtx::builder().max_random_size(4096).build());
        WasiCtxView {
            ctx,
            table: &mut self.table,
        }
    }
}
