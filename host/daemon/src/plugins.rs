//! The plugins of the current configuration, and which of them serves a device.

pub(crate) mod backoff;
pub(crate) mod load;
mod set;

use std::sync::{Arc, PoisonError, RwLock};

pub(crate) use self::set::{PluginSet, ServingPlugin};

use self::backoff::Backoffs;

/// The current plugins and their backoffs. A reload replaces the set as a whole.
pub(crate) struct Plugins {
    current: RwLock<Arc<PluginSet>>,
    pub(crate) backoffs: Backoffs,
}

impl Plugins {
    pub(crate) fn new(set: PluginSet) -> Self {
        Self {
            backoffs: Backoffs::new(&set),
            current: RwLock::new(Arc::new(set)),
        }
    }

    pub(crate) fn current(&self) -> Arc<PluginSet> {
        // The lock guards one assignment, so a poisoned lock holds a whole value.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the plugins for handlers that start from now on.
    pub(crate) fn replace(&self, set: PluginSet) {
        self.backoffs.reconfigure(&set);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
    }
}
