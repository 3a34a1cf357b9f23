//! Who does what blocks: threads, so that the tasks go on meanwhile. In the simulation its clock says who goes on.

use std::thread;

use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::{JoinHandle, spawn_blocking},
};
use tracing::warn;
use xenplug_system::{Network, network::IfName};

/// Who does what blocks.
pub(crate) enum Workers {
    /// Threads.
    Threads,
    /// The simulation's.
    #[cfg(test)]
    Simulated(crate::tests::simulation::Workers),
}

impl Workers {
    /// Has something done that blocks.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self {
            Self::Threads => spawn_blocking(work),
            #[cfg(test)]
            Self::Simulated(workers) => workers.run(work),
        }
    }

    /// The links that appear from now on: see [`Network::appearances`].
    pub(crate) fn links(&self, network: &dyn Network) -> UnboundedReceiver<Option<IfName>> {
        match self {
            Self::Threads => follow(network),
            #[cfg(test)]
            Self::Simulated(workers) => workers.links(),
        }
    }
}

fn follow(network: &dyn Network) -> UnboundedReceiver<Option<IfName>> {
    let (told, links) = unbounded_channel();
    match network.appearances() {
        Ok(names) => {
            thread::Builder::new()
                .name("links".to_owned())
                .spawn(move || {
                    for name in names {
                        if told.send(name).is_err() {
                            break;
                        }
                    }
                })
                .map_or_else(|error| warn!(%error, "no thread to follow links"), drop);
        }
        Err(error) => warn!(%error, "new links are not seen at once, only when all is looked at"),
    }
    links
}
