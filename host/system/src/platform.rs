//! Bundle of one implementation of each trait.

use std::sync::Arc;

use crate::{Block, Error, Firewall, Locks, Network, Process, linux, lock::NoScripts};

/// Interface to the host, one implementation of each trait.
#[derive(Clone)]
pub struct Platform {
    /// Files, block devices and loop devices.
    pub block: Arc<dyn Block>,
    /// Links and bridges.
    pub network: Arc<dyn Network>,
    /// Rules for the frames that a link may send.
    pub firewall: Arc<dyn Firewall>,
    /// Helper programs.
    pub process: Arc<dyn Process>,
    /// Locks that exclude the original hotplug scripts.
    pub locks: Arc<dyn Locks>,
}

impl Platform {
    /// Returns the implementation for this Linux host.
    pub fn linux() -> Result<Self, Error> {
        Ok(Self {
            block: Arc::new(linux::LinuxBlock::default()),
            network: Arc::new(linux::LinuxNetwork::default()),
            firewall: Arc::new(linux::LinuxFirewall::default()),
            process: Arc::new(linux::LinuxProcess::default()),
            locks: Arc::new(NoScripts),
        })
    }

    /// Adds the locks for a host on which original hotplug scripts attach devices too.
    #[must_use]
    pub fn beside_scripts(self) -> Self {
        Self {
            locks: Arc::new(linux::LinuxLocks::default()),
            ..self
        }
    }
}
