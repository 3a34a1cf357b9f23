//! The wasmtime engine: the WebAssembly features of guests, the size of the pool, and the clock that stops loops.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::{limits::Limits, text::clean};

/// An engine that cannot be created.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the WebAssembly engine: {0}")]
pub struct EngineError(String);

/// The engine that compiles and runs all plugins.
#[derive(Clone)]
pub struct Engine {
    wasmtime: wasmtime::Engine,
    clock: Arc<Clock>,
}

impl Engine {
    /// Creates an engine with room for [`Limits::CONCURRENT_EVENTS`] events at a time, and as many that are late.
    pub fn new() -> Result<Self, EngineError> {
        let mut config = Self::config();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(Self::pool()));
        let wasmtime = wasmtime::Engine::new(&config).map_err(|error| EngineError(format!("{error:#}")))?;
        let clock = Arc::new(Clock::default());
        let (ticking, engine) = (Arc::clone(&clock), wasmtime.weak());
        thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(move || {
                while ticking.wait_for_events() {
                    thread::sleep(Limits::TICK);
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => break,
                    }
                }
            })
            .map_err(|error| EngineError(format!("no thread for the clock: {error}")))?;
        Ok(Self { wasmtime, clock })
    }

    fn config() -> Config {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(Limits::STACK)
            .async_stack_size(Limits::STACK * 2)
            .wasm_backtrace_details(WasmBacktraceDetails::Disable)
            .generate_address_map(false)
            // Features that handlers have no use for are off. Multi-memory stays on: composed components need it.
            .wasm_gc(false)
            .wasm_function_references(false)
            .wasm_exceptions(false)
            .wasm_tail_call(false)
            .wasm_memory64(false)
            .wasm_threads(false)
            .wasm_relaxed_simd(false)
            .concurrency_support(false)
            .memory_reservation(Limits::MEMORY_MAX as u64)
            .memory_guard_size(64 << 10);
        config
    }

    fn pool() -> PoolingAllocationConfig {
        let room = 2 * Limits::CONCURRENT_EVENTS as u32;
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(room)
            .total_core_instances(room * Limits::INSTANCES)
            .total_memories(room * Limits::MEMORIES)
            .total_tables(room * Limits::TABLES)
            .total_stacks(room)
            .max_core_instances_per_component(Limits::INSTANCES)
            .max_memories_per_component(Limits::MEMORIES)
            .max_tables_per_component(Limits::TABLES)
            .max_memory_size(Limits::MEMORY_MAX)
            .table_elements(Limits::TABLE_ELEMENTS)
            .max_unused_warm_slots(4)
            .linear_memory_keep_resident(64 << 10)
            .table_keep_resident(16 << 10);
        pool
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.wasmtime
    }

    /// Compiles a component for engines made by [`Engine::new`], on an engine without a pool, which reserves no memory.
    /// A hostile component takes time and memory without bound: see [`crate::Compiler`].
    pub fn compile(component: &[u8]) -> Result<Vec<u8>, String> {
        if wasmtime::Engine::detect_precompiled(component).is_some() {
            return Err("it is compiled code, not a component".to_owned());
        }
        if !component.starts_with(b"\0asm") {
            return Err("it is not a WebAssembly component".to_owned());
        }
        // The layer of the binary format: 0 for a core module, 1 for a component.
        if component.get(6..8) == Some(&[0, 0]) {
            return Err("it is a core module; `wasm-tools component new` makes a component of one".to_owned());
        }
        let text = |error: wasmtime::Error| clean(&format!("{error:#}"), 400);
        let engine = wasmtime::Engine::new(&Self::config()).map_err(text)?;
        engine.precompile_component(component).map_err(text)
    }

    /// Keeps the clock ticking until the returned value is dropped.
    pub(crate) fn run(&self) -> Running {
        self.clock.add(1);
        Running(Arc::clone(&self.clock))
    }
}

/// Clock that ticks only while events run, so that an idle daemon sleeps.
#[derive(Default)]
struct Clock {
    events: Mutex<usize>,
    some: Condvar,
}

impl Clock {
    fn add(&self, events: isize) {
        let mut count = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add_signed(events);
        if events > 0 && *count == 1 {
            self.some.notify_one();
        }
    }

    /// Waits until an event runs.
    fn wait_for_events(&self) -> bool {
        let count = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.some.wait_while(count, |count| *count == 0));
        true
    }
}

/// An event that runs.
pub(crate) struct Running(Arc<Clock>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
