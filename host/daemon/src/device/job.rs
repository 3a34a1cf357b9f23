//! The work of a device on a worker thread: its handler, or the release of its resources.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{sync::OwnedSemaphorePermit, task::JoinHandle, time::Instant};
use tracing::{Span, warn};
use xenplug_runtime::{Cancel, Connected, Device, DeviceResources, Fault, HostAccess, Plugin};

use super::context::DeviceContext;
use crate::workers::Workers;

/// The time after a handler's deadline at which its thread counts as stuck in the kernel.
const LATE: Duration = Duration::from_secs(2);

/// The work in flight.
#[derive(Default)]
pub(super) enum Job {
    #[default]
    Idle,
    Handler {
        task: JoinHandle<(DeviceResources, Result<Connected, Fault>)>,
        cancel: Cancel,
        late: Instant,
        /// None once the handler is late: others may run instead.
        permit: Option<OwnedSemaphorePermit>,
    },
    Release {
        task: JoinHandle<(DeviceResources, Vec<String>, Option<Fault>)>,
    },
}

impl Job {
    pub(super) fn handler(
        workers: &Workers,
        plugin: Arc<Plugin>,
        device: Arc<Device>,
        resources: DeviceResources,
        permit: Option<OwnedSemaphorePermit>,
        span: Span,
    ) -> Self {
        let cancel = Cancel::default();
        let late = Instant::now() + plugin.limits().deadline + LATE;
        let stop = cancel.clone();
        let task = workers.run(move || span.in_scope(|| plugin.connect(device, resources, &stop)));
        Self::Handler {
            task,
            cancel,
            late,
            permit,
        }
    }

    /// Releases resources, after the plugin's `disconnect` if it has one.
    pub(super) fn release(
        context: &Arc<DeviceContext>,
        disconnect: Option<(Arc<Plugin>, Arc<Device>)>,
        mut resources: DeviceResources,
        span: Span,
    ) -> Self {
        let owned = Arc::clone(context);
        let task = context.daemon.workers.run(move || {
            let context = owned;
            span.in_scope(|| {
                let mut fault = None;
                if let Some((plugin, device)) = disconnect {
                    let (back, result) = plugin.disconnect(device, resources, &Cancel::default());
                    resources = back;
                    fault = result.err();
                    if let Some(fault) = &fault {
                        let name = plugin.name();
                        warn!("{name}: plugin failed to disconnect, its resources are released regardless: {fault}");
                    }
                }
                let failures = resources.release(HostAccess {
                    platform: &context.daemon.platform,
                    grants: &context.plugins.current().release,
                    shared: &context.shared,
                });
                (resources, failures, fault)
            })
        });
        Self::Release { task }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Asks the handler, if one runs, to end early.
    pub(super) fn stop_handler(&self) {
        if let Self::Handler { cancel, .. } = self {
            cancel.cancel();
        }
    }

    /// Returns when the handler that runs counts as stuck, if it does not yet.
    pub(super) fn handler_late(&self) -> Option<Instant> {
        match self {
            Self::Handler {
                late, permit: Some(_), ..
            } => Some(*late),
            _ => None,
        }
    }

    /// Counts the handler as stuck, and lets another handler run.
    pub(super) fn give_up_permit(&mut self) {
        if let Self::Handler { permit, .. } = self {
            *permit = None;
        }
    }

    /// Waits until the work is done; forever if there is none.
    pub(super) async fn finished(&mut self) -> Finished {
        let finished = match self {
            Self::Idle => pending().await,
            // A panic on a worker thread ends the daemon, see `main`: the journal is the safer witness then.
            Self::Handler { task, permit, .. } => {
                let (resources, answer) = task.await.expect("worker threads do not panic");
                Finished::Handler {
                    resources,
                    answer,
                    in_time: permit.is_some(),
                }
            }
            Self::Release { task } => {
                let (resources, failures, fault) = task.await.expect("worker threads do not panic");
                Finished::Release {
                    resources,
                    failures,
                    fault,
                }
            }
        };
        *self = Self::Idle;
        finished
    }
}

/// The outcome of the work.
pub(super) enum Finished {
    Handler {
        resources: DeviceResources,
        answer: Result<Connected, Fault>,
        /// True if the thread came back before it counted as stuck.
        in_time: bool,
    },
    Release {
        resources: DeviceResources,
        /// The resources that could not be released, for people.
        failures: Vec<String>,
        /// The fault of the plugin's `disconnect`.
        fault: Option<Fault>,
    },
}
