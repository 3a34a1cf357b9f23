//! The locks of the original hotplug scripts (tools/hotplug/Linux/locking.sh), for a host on which scripts attach
//! devices too.

use std::{any::Any, fmt, time::Instant};

use crate::Error;

/// Name of the lock under which the script `block` checks the users of a disk, and publishes its own use.
pub const BLOCK: &str = "block";

/// Locks that exclude the original scripts from a critical section.
///
/// They do not exclude the daemon's own threads from one another: all holders in this process share a lock, and the
/// last one releases it. A thread that comes late does not join but waits, so that the scripts get their turn.
pub trait Locks: Send + Sync {
    /// Acquires a lock, or joins its holders. Waits until `deadline`.
    ///
    /// Errors: [`Error::Busy`] if a script has not released the lock by then.
    fn acquire(&self, name: &'static str, deadline: Instant) -> Result<ScriptLock, Error>;
}

/// A held lock, released on drop. The kernel releases it when the process ends, so it needs no journal record.
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

/// Locks for a host without original scripts, which exclude nobody.
#[derive(Debug)]
pub(crate) struct NoScripts;

impl Locks for NoScripts {
    fn acquire(&self, name: &'static str, _: Instant) -> Result<ScriptLock, Error> {
        Ok(ScriptLock::new(name, ()))
    }
}
