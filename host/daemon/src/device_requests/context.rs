//! Everything that the tasks of requests work with.

use std::sync::Arc;

use crate::{context::DaemonContext, device::Registry, request_index::RequestIndex};

/// Everything that the tasks of requests work with.
pub(super) struct RequestContext {
    pub(super) daemon: Arc<DaemonContext>,
    pub(super) registry: Arc<Registry>,
    pub(super) index: Arc<RequestIndex>,
}
