//! What the machine can do for a device: loop and block devices, links, nftables rules, helper processes.
//!
//! One trait for each kind of thing ([`Block`], [`Network`], [`Firewall`], [`Process`]), each with the Linux
//! implementation ([`Platform::linux`]) and a simulated one ([`Platform::simulated`]). Every call takes a grant, which only
//! the operator's configuration can make, and plain data; it answers with plain data. Descriptors and netlink sockets
//! stay in here, and so does all `unsafe` of the project.
//!
//! The calls block. They are made from worker threads, never from an asynchronous task.

pub mod block;
pub mod error;
pub mod firewall;
pub mod grant;
mod limits;
mod linux;
pub mod lock;
pub mod network;
pub mod process;
pub mod simulated;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use block::Block;
pub use error::Error;
pub use firewall::Firewall;
pub use limits::{confine_compiler, raise_descriptors};
pub use lock::Locks;
pub use network::Network;
pub use process::Process;

/// The machine, as far as devices need it.
#[derive(Clone)]
pub struct Platform {
    /// Files, block devices and loop devices.
    pub block: Arc<dyn Block>,
    /// Links and bridges.
    pub network: Arc<dyn Network>,
    /// What a link may send.
    pub firewall: Arc<dyn Firewall>,
    /// Helper programs.
    pub process: Arc<dyn Process>,
    /// What keeps the original hotplug scripts out.
    pub locks: Arc<dyn Locks>,
}

impl Platform {
    /// This machine.
    pub fn linux() -> Result<Self, Error> {
        Ok(Self {
            block: Arc::new(linux::LinuxBlock::default()),
            network: Arc::new(linux::LinuxNetwork::default()),
            firewall: Arc::new(linux::LinuxFirewall::default()),
            process: Arc::new(linux::LinuxProcess::default()),
            locks: Arc::new(lock::NoScripts),
        })
    }

    /// The same, on which original hotplug scripts plug devices too.
    #[must_use]
    pub fn beside_scripts(self) -> Self {
        Self {
            locks: Arc::new(linux::LinuxLocks::default()),
            ..self
        }
    }

    /// A machine that is not there, and what a test needs to play the rest of the world on it.
    pub fn simulated() -> (Self, Arc<simulated::SimHost>) {
        let machine = Arc::new(simulated::SimHost::default());
        (machine.system(), machine)
    }
}

/// Locks. A thread that panicked with the lock held left whole entries behind: each change to the tables in here is one
/// insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
