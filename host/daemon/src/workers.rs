//! Worker threads for blocking work, so that tasks go on meanwhile. In the simulation, its clock schedules the work.

use std::{convert::Infallible as Never, sync::Arc, thread};

use anyhow::Context;
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    task::{JoinHandle, spawn_blocking, spawn_local},
    time::sleep,
};
use tracing::{info, warn};
use xenplug_system::{Network, network::IfName};

use crate::retry::Pauses;

pub(crate) enum Workers {
    Threads,
    #[cfg(test)]
    Simulated(crate::tests::simulation::Workers),
}

impl Workers {
    /// Runs blocking work.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self {
            Self::Threads => spawn_blocking(work),
            #[cfg(test)]
            Self::Simulated(workers) => workers.run(work),
        }
    }

    /// Follows the links that appear from now on: see [`Network::appearances`].
    pub(crate) fn links(&self, network: &Arc<dyn Network>) -> UnboundedReceiver<Option<IfName>> {
        match self {
            Self::Threads => follow(network),
            #[cfg(test)]
            Self::Simulated(workers) => workers.links(),
        }
    }
}

/// Follows the links that appear, and tries again when that fails or ends.
fn follow(network: &Arc<dyn Network>) -> UnboundedReceiver<Option<IfName>> {
    let (names, links) = unbounded_channel();
    let network = Arc::clone(network);
    let mut listening = listen(&*network, &names);
    spawn_local(async move {
        let mut pauses = Pauses::default();
        loop {
            let cause = match listening {
                Ok(ended) => {
                    pauses = Pauses::default();
                    let _ = ended.await;
                    if names.is_closed() {
                        return;
                    }
                    "the thread has ended".to_owned()
                }
                Err(error) => format!("{error:#}"),
            };
            warn!("new links are noticed only by the periodic resync, until they can be followed again: {cause}");
            sleep(pauses.next()).await;
            listening = listen(&*network, &names);
            if listening.is_ok() {
                info!("new links are noticed at once again");
                // Links may have appeared meanwhile.
                let _ = names.send(None);
            }
        }
    });
    links
}

/// Starts a thread that passes on new links. The receiver resolves when the thread ends.
fn listen(network: &dyn Network, names: &UnboundedSender<Option<IfName>>) -> anyhow::Result<oneshot::Receiver<Never>> {
    let (appearances, names) = (network.appearances()?, names.clone());
    let (alive, ended) = oneshot::channel();
    let pass_on = move || {
        // It is dropped with the thread, or if the thread does not start.
        let _alive: oneshot::Sender<Never> = alive;
        for name in appearances {
            if names.send(name).is_err() {
                break;
            }
        }
    };
    let thread = thread::Builder::new().name("links".to_owned()).spawn(pass_on);
    thread
        .map(|_| ended)
        .context("cannot start the thread that follows links")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{task::LocalSet, time::timeout};
    use xenplug_system::{Error, Platform, simulated::Operation};

    use super::*;

    #[tokio::test]
    async fn links_are_followed_after_a_failed_start() {
        let (platform, host) = Platform::simulated();
        host.fail(Operation::Appearances, 1, Error::Busy("no memory".to_owned()));
        let follows = async {
            let mut links = Workers::Threads.links(&platform.network);
            let mut next = async || {
                timeout(Duration::from_secs(10), links.recv())
                    .await
                    .expect("a name comes")
            };
            // Everything that came before counts as lost.
            assert_eq!(next().await, Some(None));
            let name: IfName = "vif3.0".parse().expect("a name");
            host.add_link(&name);
            assert_eq!(next().await, Some(Some(name)));
        };
        LocalSet::new().run_until(follows).await;
    }
}
