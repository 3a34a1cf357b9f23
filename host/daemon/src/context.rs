//! What all devices share: the store, the machine, the plugins, the journal.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;
use xenplug_journal::Journal;
use xenplug_runtime::{Limits, SharedResources};
use xenplug_system::Platform;
use xenplug_xenbus::{DeviceInstance, DomId, Mode};
use xenplug_xenstore::Client;

use crate::{
    device::ScriptCall,
    domains::Domains,
    hotplug::Requests,
    metrics::Metrics,
    plugins::{PluginSet, Plugins},
    registry::Registry,
    workers::Workers,
};

/// What all devices share.
pub(crate) struct DaemonContext {
    pub(crate) mode: Mode,
    /// The domain the daemon runs in.
    pub(crate) own: DomId,
    pub(crate) client: Client,
    pub(crate) system: Platform,
    pub(crate) journal: Journal,
    pub(crate) shared: Arc<SharedResources>,
    pub(crate) domains: Arc<Domains>,
    pub(crate) plugins: Plugins,
    pub(crate) registry: Registry,
    pub(crate) workers: Workers,
    /// What toolstacks ask for. In dom0 they ask for nothing: libxl makes the devices, and a script calls for each.
    pub(crate) requests: Arc<Requests>,
    /// Where scripts' calls go, to be passed on to their devices: see [`crate::script`].
    pub(crate) calls: mpsc::UnboundedSender<(DeviceInstance, ScriptCall)>,
    pub(crate) metrics: Metrics,
    /// Bounds how many handlers run at a time; more wait.
    pub(crate) events: Arc<Semaphore>,
    /// Says that the daemon ends: devices finish what they are at, and stop.
    pub(crate) draining: CancellationToken,
    /// The devices' tasks.
    pub(crate) tasks: TaskTracker,
}

/// What a host is made of.
pub(crate) struct Basis {
    pub(crate) mode: Mode,
    pub(crate) client: Client,
    pub(crate) system: Platform,
    pub(crate) journal: Journal,
    pub(crate) shared: Arc<SharedResources>,
    pub(crate) plugins: PluginSet,
    pub(crate) workers: Workers,
}

impl DaemonContext {
    /// A host that serves nothing yet, and where scripts' calls come out.
    pub(crate) async fn new(
        basis: Basis,
    ) -> anyhow::Result<(Arc<Self>, mpsc::UnboundedReceiver<(DeviceInstance, ScriptCall)>)> {
        let (calls, asked) = mpsc::unbounded_channel();
        let host = Self {
            mode: basis.mode,
            own: own_domain(&basis.client).await?,
            domains: Arc::new(Domains::new(basis.client.clone())),
            client: basis.client,
            system: basis.system,
            journal: basis.journal,
            shared: basis.shared,
            plugins: Plugins::new(basis.plugins),
            registry: Registry::default(),
            requests: Arc::default(),
            workers: basis.workers,
            calls,
            metrics: Metrics::new(),
            events: Arc::new(Semaphore::new(Limits::CONCURRENT_EVENTS)),
            draining: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Ok((Arc::new(host), asked))
    }
}

/// The domain the daemon runs in.
async fn own_domain(client: &Client) -> anyhow::Result<DomId> {
    match client.read(&"domid".parse()?).await {
        Ok(value) => {
            let text = String::from_utf8_lossy(&value);
            text.trim()
                .parse()
                .with_context(|| "the store's domid node is not a number")
        }
        Err(error) if error.is_not_found() => {
            warn!("the store has no domid for this domain; it is taken to be domain 0");
            Ok(DomId(0))
        }
        Err(error) => Err(error).context("the store does not say which domain this is"),
    }
}
