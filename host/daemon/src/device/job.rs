//! What a device has a worker thread do: its handler, and giving back what it holds.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::Instant};
use tracing::{Span, warn};
use xenplug_runtime::{Cancel, Connection, Device, DeviceResources, Fault, Plugin};

use crate::{context::DaemonContext, workers::Workers};

/// How long after a handler's deadline its thread may be late before that is published: it is in the kernel then.
const LATE: Duration = Duration::from_secs(2);

/// What a worker thread was asked to do.
pub(super) enum Job {
    /// A handler runs.
    Handler {
        task: JoinHandle<(DeviceResources, Result<Connection, Fault>)>,
        cancel: Cancel,
        late: Instant,
    },
    /// What is held is being given back.
    Release {
        task: JoinHandle<(DeviceResources, Vec<String>, Option<Fault>)>,
    },
}

impl Job {
    /// Runs a handler.
    pub(super) fn handler(
        workers: &Workers,
        plugin: Arc<Plugin>,
        device: Arc<Device>,
        resources: DeviceResources,
        span: Span,
    ) -> Self {
        let cancel = Cancel::default();
        let late = Instant::now() + plugin.limits().deadline + LATE;
        let stop = cancel.clone();
        let task = workers.run(move || span.in_scope(|| plugin.connect(device, resources, &stop)));
        Self::Handler { task, cancel, late }
    }

    /// Gives back what is held, after a word to the plugin if it wants one.
    pub(super) fn release(
        host: &Arc<DaemonContext>,
        disconnects: Option<(Arc<Plugin>, Arc<Device>)>,
        mut resources: DeviceResources,
        span: Span,
    ) -> Self {
        let owned = Arc::clone(host);
        let task = host.workers.run(move || {
            let host = owned;
            span.in_scope(|| {
                let mut fault = None;
                if let Some((plugin, device)) = disconnects {
                    let (back, said) = plugin.disconnect(device, resources, &Cancel::default());
                    resources = back;
                    fault = said.err();
                }
                if let Some(fault) = &fault {
                    warn!("plugin failed to disconnect, its resources are released regardless: {fault}");
                }
                let failures = resources.release(&host.system, &host.plugins.current().release, &host.shared);
                (resources, failures, fault)
            })
        });
        Self::Release { task }
    }

    /// PendingCalls the handler, if one runs, to end early.
    pub(super) fn stop_handler(&self) {
        if let Self::Handler { cancel, .. } = self {
            cancel.cancel();
        }
    }
}

/// What a worker thread brought back.
pub(super) enum Finished {
    Handler(DeviceResources, Result<Connection, Fault>),
    /// With what could not be given back, and how the plugin failed when it was told of the end.
    Release(DeviceResources, Vec<String>, Option<Fault>),
}

/// Waits for the worker thread, if there is one.
pub(super) async fn finished(job: &mut Option<Job>) -> Finished {
    let done = match job {
        None => std::future::pending().await,
        // A panic on a worker thread ends the daemon, see `main`: its journal is the safer witness then.
        Some(Job::Handler { task, .. }) => {
            let (resources, answer) = task.await.expect("worker threads do not panic");
            Finished::Handler(resources, answer)
        }
        Some(Job::Release { task }) => {
            let (resources, failures, fault) = task.await.expect("worker threads do not panic");
            Finished::Release(resources, failures, fault)
        }
    };
    *job = None;
    done
}
