//! The locks of the original hotplug scripts (tools/hotplug/Linux/locking.sh), for a machine on which both plug devices.

use std::time::Duration;

use crate::Error;

/// The lock under which `block` checks who uses a disk, and publishes that it does.
pub const BLOCK: &str = "block";

/// The locks that keep the original scripts out of a section, or wait for them to leave it.
///
/// They do not keep our own devices from one another: all who hold a lock in here hold it together, and the last of them
/// gives it up. One who comes late does not join but waits, so that the scripts get their turn.
pub trait Locks: Send + Sync {
    /// Takes a lock, or joins those who have it. After an error nothing is held.
    ///
    /// Errors: [`Error::Busy`] if a script has not given it up within `patience`.
    fn take(&self, name: &str, patience: Duration) -> Result<(), Error>;

    /// Gives a lock back, as often as it was taken.
    fn give_back(&self, name: &str);
}

/// Locks of a host without original scripts: they keep nobody out.
#[derive(Debug)]
pub(crate) struct NoScripts;

impl Locks for NoScripts {
    fn take(&self, _: &str, _: Duration) -> Result<(), Error> {
        Ok(())
    }

    fn give_back(&self, _: &str) {}
}
