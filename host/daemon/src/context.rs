//! The parts of the daemon that every feature uses: the store, the platform, the journal. It knows no feature.

use std::sync::Arc;

use anyhow::Context;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;
use xenplug_journal::Journal;
use xenplug_system::Platform;
use xenplug_xenbus::{DomId, Mode};
use xenplug_xenstore::{Client, Path};

use crate::workers::Workers;

/// The parts of the daemon that every feature uses.
pub(crate) struct DaemonContext {
    pub(crate) mode: Mode,
    /// The domain that the daemon runs in.
    pub(crate) own: DomId,
    pub(crate) store: Client,
    pub(crate) platform: Platform,
    pub(crate) journal: Journal,
    pub(crate) workers: Workers,
    /// Cancelled when the daemon ends: tasks finish the operation in flight, and stop.
    pub(crate) draining: CancellationToken,
    /// The tasks that the end of the daemon waits for.
    pub(crate) tasks: TaskTracker,
}

impl DaemonContext {
    pub(crate) async fn new(
        mode: Mode,
        store: Client,
        platform: Platform,
        journal: Journal,
        workers: Workers,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            mode,
            own: own_domain(&store).await?,
            store,
            platform,
            journal,
            workers,
            draining: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// The directory of this domain's backends.
    pub(crate) fn backend_root(&self) -> Path {
        format!("/local/domain/{}/backend", self.own)
            .parse()
            .expect("a path with a number in it is a path")
    }
}

async fn own_domain(store: &Client) -> anyhow::Result<DomId> {
    match store.read(&"domid".parse()?).await {
        Ok(value) => {
            let text = String::from_utf8_lossy(&value);
            text.trim().parse().context("xenstore's domid node is not a number")
        }
        Err(error) if error.is_not_found() => {
            warn!("xenstore has no domid node for this domain; assuming domain 0");
            Ok(DomId(0))
        }
        Err(error) => Err(error).context("cannot read the domid node of this domain"),
    }
}
