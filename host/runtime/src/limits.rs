//! Limits of one event.

use std::time::Duration;

/// Limits of one event.
///
/// The defaults suit handlers in any language; `[plugin.NAME.limits]` changes the first three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory in bytes, over all its memories. Default 16 MiB, at most [`Limits::MEMORY_MAX`].
    pub memory: usize,
    /// Wall-clock time. Default 10 s.
    pub deadline: Duration,
    /// Host calls. Default 4096.
    pub calls: u32,
    /// Lines that the handler may log; the rest is counted. Default 64.
    pub log_lines: u32,
}

impl Limits {
    /// The largest memory a plugin may be given: what the pool reserves for each.
    pub const MEMORY_MAX: usize = 256 << 20;
    /// Entries in all tables of an instance.
    pub(crate) const TABLE_ELEMENTS: usize = 20_000;
    /// Memories and tables of a component; toolchains for interpreted languages make several.
    pub(crate) const MEMORIES: u32 = 4;
    /// See [`Limits::MEMORIES`].
    pub(crate) const TABLES: u32 = 16;
    /// Core instances within a component.
    pub(crate) const INSTANCES: u32 = 64;
    /// Bytes that may be passed to one host call: 64 lines or arguments of 4 KiB.
    pub(crate) const CALL_BYTES: usize = 256 << 10;
    /// Handles a guest may have open at a time.
    pub(crate) const HANDLES: usize = 256;
    /// Resources that a device may hold, such as loop devices, addresses, rules.
    pub(crate) const RESOURCES: usize = 128;
    /// Bytes of one log line.
    pub(crate) const LOG_LINE: usize = 1024;
    /// Bytes of native stack for the guest.
    pub(crate) const STACK: usize = 512 << 10;
    /// Interval of the clock that stops endless loops while events run.
    pub(crate) const TICK: Duration = Duration::from_millis(10);
    /// Events that may run at a time; more wait.
    pub const CONCURRENT_EVENTS: usize = 32;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 16 << 20,
            deadline: Duration::from_secs(10),
            calls: 4096,
            log_lines: 64,
        }
    }
}
