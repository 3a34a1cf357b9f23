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
use xenplug_system::{Platform, lock::ScriptLock};

use crate::{
    call_error::{CallError, Stop},
    device::Device,
    grants::Grants,
    limits::Limits,
    resource::{DeviceResources, HostAccess},
    shared::{Changes, SharedResources},
};

/// State that all events of a plugin share.
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) platform: Platform,
    pub(crate) grants: Grants,
    pub(crate) shared: Arc<SharedResources>,
    pub(crate) config: HashMap<String, String>,
    pub(crate) limits: Limits,
}

impl Context {
    pub(crate) fn access(&self) -> HostAccess<'_> {
        HostAccess {
            platform: &self.platform,
            grants: &self.grants,
            shared: &self.shared,
        }
    }
}

/// The device that an event is about. `describe` is about none.
pub(crate) struct Subject {
    pub(crate) device: Arc<Device>,
    pub(crate) resources: DeviceResources,
    /// The lock that keeps the original scripts out, once the handler has checked something under it.
    pub(crate) script_lock: Option<ScriptLock>,
}

/// A signal that stops a running event.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    cancelled: AtomicBool,
    /// Wakes the event where it waits for other devices.
    changes: Mutex<Option<Changes>>,
}

impl Cancel {
    /// Stops the event at its next host call or tick of the clock, or where it waits for other devices.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        if let Some(changes) = &*self.changes() {
            changes.notify();
        }
    }

    fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    fn changes(&self) -> MutexGuard<'_, Option<Changes>> {
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limits of memory and tables. They note a refusal, since a guest that then traps says nothing of why.
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
        *cancel.changes() = Some(context.shared.changes.clone());
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

    /// Counts a host call, and stops the event if it must not go on.
    pub(crate) fn count_call(&mut self) -> Result<(), Stop> {
        self.calls += 1;
        if self.calls > self.context.limits.calls {
            return Err(Stop::Calls);
        }
        self.check()
    }

    /// An error if the event must not go on.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            Err(Stop::Cancelled)
        } else if Instant::now() >= self.deadline {
            Err(Stop::Deadline)
        } else {
            Ok(())
        }
    }

    /// Waits, until the event's deadline, for an attempt that yields something. Changes by other devices wake it.
    pub(crate) fn wait<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Result<T, Stop> {
        let attempted = self.context.shared.changes.wait(self.deadline, || match self.check() {
            Ok(()) => attempt().map(Ok),
            Err(stop) => Some(Err(stop)),
        });
        attempted.unwrap_or(Err(Stop::Deadline))
    }

    /// The device, or a denial: `describe` has none.
    pub(crate) fn subject(&mut self) -> Result<&mut Subject, CallError> {
        let none = || CallError::Denied("there is no device in describe".to_owned());
        self.subject.as_mut().ok_or_else(none)
    }

    /// The device's resources, or a denial.
    pub(crate) fn resources(&mut self) -> Result<&mut DeviceResources, CallError> {
        Ok(&mut self.subject()?.resources)
    }
}

impl WasiView for Event {
    /// WASI with nothing in it: no arguments, environment, files or sockets. The imports that toolchains make unasked
    /// can be linked, and find an empty world.
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
