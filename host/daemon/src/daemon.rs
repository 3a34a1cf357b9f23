//! The assembly of the daemon: creates the features, connects them, starts their tasks, and drains them.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::{JoinHandle, spawn_local},
    time::timeout,
};
use tracing::warn;
use xenplug_runtime::SharedResources;

use crate::{
    context::DaemonContext,
    control::{
        Control,
        script::{self, ScriptDesk},
    },
    device::{DeviceContext, Registry, recovery},
    device_requests::DeviceRequests,
    dispatch::{Dispatch, Sources},
    domains::Domains,
    foreign_disks::ForeignDisks,
    helpers::Helpers,
    metrics::Metrics,
    plugins::{PluginSet, Plugins},
    request_index::RequestIndex,
    store_bridge::{Questions, StoreAnswers},
};

/// The time in which devices must finish their operations in flight when the daemon ends.
const DRAIN: Duration = Duration::from_secs(20);

/// The running daemon.
pub(crate) struct Daemon {
    pub(crate) control: Arc<Control>,
    pub(crate) dispatch: JoinHandle<()>,
}

impl Daemon {
    /// Starts to serve devices: adopts those that an earlier daemon left, and follows the store, the kernel, and scripts.
    pub(crate) async fn start(
        context: Arc<DaemonContext>,
        plugins: PluginSet,
        shared: Arc<SharedResources>,
        questions: Questions,
    ) -> anyhow::Result<Self> {
        let domains = Arc::new(Domains::new(context.store.clone()));
        let metrics = Arc::new(Metrics::new());
        let plugins = Arc::new(Plugins::new(plugins));
        let requests = Arc::new(RequestIndex::default());
        let devices = Arc::new(DeviceContext::new(
            Arc::clone(&context),
            Arc::clone(&domains),
            Arc::clone(&metrics),
            Arc::clone(&plugins),
            Arc::clone(&requests),
            shared,
        ));
        let registry = Arc::new(Registry::new(Arc::clone(&devices)));
        let (foreign_disks, flushes) = ForeignDisks::new(Arc::clone(&context), Arc::clone(&registry));
        let foreign_disks = Arc::new(foreign_disks);
        let helpers = Arc::new(Helpers::new(Arc::clone(&devices), Arc::clone(&registry)));
        let answers = StoreAnswers {
            helpers: Arc::clone(&helpers),
            foreign_disks: Arc::clone(&foreign_disks),
        };
        spawn_local(answers.serve(questions));

        let dispatch = Dispatch {
            sources: Sources::new(&context, flushes).await?,
            context: Arc::clone(&context),
            domains,
            foreign_disks,
            registry: Arc::clone(&registry),
            requests: Arc::clone(&requests),
        };
        recovery::run(&devices, &registry).await?;

        let (scripts, calls) = ScriptDesk::new(Arc::clone(&context), Arc::clone(&plugins), Arc::clone(&registry));
        spawn_local(script::forward(Arc::clone(&registry), calls));
        let requests = DeviceRequests::new(Arc::clone(&context), Arc::clone(&registry), requests);
        spawn_local(requests.follow());
        spawn_local(helpers.poll());
        Ok(Self {
            dispatch: spawn_local(dispatch.run()),
            control: Arc::new(Control {
                context,
                metrics,
                plugins,
                registry,
                scripts,
            }),
        })
    }

    /// Lets the devices finish their operations in flight.
    pub(crate) async fn drain(&self) {
        let context = &self.control.context;
        context.draining.cancel();
        context.tasks.close();
        if timeout(DRAIN, context.tasks.wait()).await.is_err() {
            warn!("some devices did not finish; the next start continues from the journal");
        }
    }
}
