//! Who does what blocks: threads, so that the tasks go on meanwhile. In the simulation its clock says who goes on.

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
    pub(crate) fn links(&self, network: &Arc<dyn Network>) -> UnboundedReceiver<Option<IfName>> {
        match self {
            Self::Threads => follow(network),
            #[cfg(test)]
            Self::Simulated(workers) => workers.links(),
        }
    }
}

/// Follows them from here on, or as soon as that can be done, and again if it ends.
fn follow(network: &Arc<dyn Network>) -> UnboundedReceiver<Option<IfName>> {
    let (told, links) = unbounded_channel();
    let network = Arc::clone(network);
    let mut listening = listen(&*network, &told);
    spawn_local(async move {
        let mut pauses = Pauses::default();
        loop {
            let cause = match listening {
                Ok(ended) => {
                    pauses = Pauses::default();
                    let _ = ended.await;
                    if told.is_closed() {
                        return;
                    }
                    "their thread has ended".to_owned()
                }
                Err(error) => format!("{error:#}"),
            };
            warn!(
                cause,
                "new links are not seen at once, only when all is looked at; that is tried again"
            );
            sleep(pauses.next()).await;
            listening = listen(&*network, &told);
            if listening.is_ok() {
                info!("new links are seen at once");
                // Whichever have come meanwhile.
                let _ = told.send(None);
            }
        }
    });
    links
}

/// Begins to pass on what appears; its end is told.
fn listen(network: &dyn Network, told: &UnboundedSender<Option<IfName>>) -> anyhow::Result<oneshot::Receiver<Never>> {
    let (names, told) = (network.appearances()?, told.clone());
    let (alive, ended) = oneshot::channel();
    let pass_on = move || {
        // Dropped with the thread, or before it has begun.
        let _alive: oneshot::Sender<Never> = alive;
        for name in names {
            if told.send(name).is_err() {
                break;
            }
        }
    };
    let thread = thread::Builder::new().name("links".to_owned()).spawn(pass_on);
    thread.map(|_| ended).context("no thread follows links")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{task::LocalSet, time::timeout};
    use xenplug_system::{Error, Platform, simulated::Operation};

    use super::*;

    #[tokio::test]
    async fn links_that_cannot_be_followed_at_once_are_followed_later() {
        let (system, machine) = Platform::simulated();
        machine.fail(Operation::Appearances, 1, Error::Busy("no memory".to_owned()));
        let follows = async {
            let mut links = Workers::Threads.links(&system.network);
            let mut next = async || {
                timeout(Duration::from_secs(10), links.recv())
                    .await
                    .expect("it is told")
            };
            // Once they are, all that came before count as lost.
            assert_eq!(next().await, Some(None));
            let name: IfName = "vif3.0".parse().expect("a name");
            machine.add_link(&name);
            assert_eq!(next().await, Some(Some(name)));
        };
        LocalSet::new().run_until(follows).await;
    }
}
