//! Everything that the tasks of devices work with.

use std::sync::Arc;

use tokio::sync::Semaphore;
use xenplug_runtime::{Limits, SharedResources};

use crate::{
    context::DaemonContext, domains::Domains, metrics::Metrics, plugins::Plugins, request_index::RequestIndex,
};

/// Everything that the tasks of devices work with.
pub(crate) struct DeviceContext {
    pub(crate) daemon: Arc<DaemonContext>,
    pub(crate) domains: Arc<Domains>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) plugins: Arc<Plugins>,
    pub(crate) requests: Arc<RequestIndex>,
    pub(crate) shared: Arc<SharedResources>,
    /// Bounds how many handlers run at a time; more wait.
    pub(super) handler_permits: Arc<Semaphore>,
}

impl DeviceContext {
    pub(crate) fn new(
        daemon: Arc<DaemonContext>,
        domains: Arc<Domains>,
        metrics: Arc<Metrics>,
        plugins: Arc<Plugins>,
        requests: Arc<RequestIndex>,
        shared: Arc<SharedResources>,
    ) -> Self {
        Self {
            daemon,
            domains,
            metrics,
            plugins,
            requests,
            shared,
            handler_permits: Arc::new(Semaphore::new(Limits::CONCURRENT_EVENTS)),
        }
    }
}
