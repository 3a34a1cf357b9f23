//! One implementation of each trait, together: Linux, or a simulated host.

use std::sync::Arc;

use crate::{
    Block, Error, Firewall, Locks, Network, Process, linux,
    lock::NoScripts,
    simulated::{SimHost, SimulatedBlock, SimulatedFirewall, SimulatedNetwork, SimulatedProcess},
};

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

    /// A simulated host, and the handle by which a test plays the rest of the world on it.
    pub fn simulated() -> (Self, Arc<SimHost>) {
        let host = Arc::new(SimHost::default());
        (host.system(), host)
    }
}

impl SimHost {
    /// Platform of one daemon on this host, like [`Platform::linux`]. A test may make several.
    pub fn system(self: &Arc<Self>) -> Platform {
        Platform {
            block: Arc::new(SimulatedBlock::on(self.clone())),
            network: Arc::new(SimulatedNetwork(self.clone())),
            firewall: Arc::new(SimulatedFirewall(self.clone())),
            process: Arc::new(SimulatedProcess(self.clone())),
            locks: Arc::new(NoScripts),
        }
    }
}
