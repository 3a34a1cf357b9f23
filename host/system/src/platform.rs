//! One implementation of each trait, together.

use std::sync::Arc;

use crate::{Block, Error, Firewall, Locks, Network, Process, linux, lock::NoScripts};

/// What devices need of the host.
#[derive(Clone)]
pub struct Platform {
    /// Files, block devices and loop devices.
    pub block: Arc<dyn Block>,
    /// Links and bridges.
    pub network: Arc<dyn Network>,
    /// The frames that a link may send.
    pub firewall: Arc<dyn Firewall>,
    /// Helper programs.
    pub process: Arc<dyn Process>,
    /// The locks that keep the original hotplug scripts out.
    pub locks: Arc<dyn Locks>,
}

impl Platform {
    /// This host.
    pub fn linux() -> Result<Self, Error> {
        Ok(Self {
            block: Arc::new(linux::LinuxBlock::default()),
            network: Arc::new(linux::LinuxNetwork::default()),
            firewall: Arc::new(linux::LinuxFirewall::default()),
            process: Arc::new(linux::LinuxProcess::default()),
            locks: Arc::new(NoScripts),
        })
    }

    /// The same host, on which original hotplug scripts plug devices too.
    #[must_use]
    pub fn beside_scripts(self) -> Self {
        Self {
            locks: Arc::new(linux::LinuxLocks::default()),
            ..self
        }
    }
}
