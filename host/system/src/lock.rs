//! The locks of the original hotplug scripts (tools/hotplug/Linux/locking.sh), for a host on which both plug devices.

use std::{any::Any, fmt, time::Instant};

use crate::Error;

/// The lock under which `block` checks who uses a disk, and publishes that it does.
pub const BLOCK: &str = "block";

/// The locks that keep the original scripts out of a section, or wait for them to leave it.
///
/// They do not keep our own devices from one another: all holders in this process hold a lock together, and the last of
/// them gives it up. A late one does not join but waits, so that the scripts get their turn.
pub trait Locks: Send + Sync {
    /// Acquires a lock, alone or with those who hold it already. Waits until `deadline`.
    ///
    /// Errors: [`Error::Busy`] if a script has not released the lock by then.
    fn acquire(&self, name: &'static str, deadline: Instant) -> Result<ScriptLock, Error>;
}

/// A held lock, released when this is dropped. It ends with the process, and so is in no journal.
pub struct ScriptLock {
    name: &'static str,
    #[expect(dead_code, reason = "its drop releases the lock")]
    hold: Box<dyn Any + Send>,
}

impl ScriptLock {
    pub(crate) fn new(name: &'static str, hold: impl Any + Send) -> Self {
        Self {
            name,
            hold: Box::new(hold),
        }
    }
}

impl fmt::Debug for ScriptLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScriptLock").field(&self.name).finish()
    }
}

/// Locks of a host without original scripts: they keep nobody out.
#[derive(Debug)]
pub(crate) struct NoScripts;

impl Locks for NoScripts {
    fn acquire(&self, name: &'static str, _: Instant) -> Result<ScriptLock, Error> {
        Ok(ScriptLock::new(name, ()))
    }
}
