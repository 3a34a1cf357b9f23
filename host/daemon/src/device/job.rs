//! What a device has a worker thread do: its handler, and giving back what it holds.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::Instant};
use tracing::{Span, warn};
use xenplug_runtime::{Cancel, Connection, Device, Fault, Holding, Plugin};

use crate::{host::Host, workers::Workers};

/// How long after a handler's deadline its thread may be late before that is published: it is in the kernel then.
const LATE: Duration = Duration::from_secs(2);

/// What a worker thread was asked to do.
pub(super) enum Job {
    /// A handler runs.
    Handler {
        task: JoinHandle<(Holding, Result<Connection, Fault>)>,
        cancel: Cancel,
        late: Instant,
    },
    /// What is held is being given back.
    Release {
        task: JoinHandle<(Holding, Vec<String>, Option<Fault>)>,
    },
}

impl Job {
    /// Runs a handler.
    pub(super) fn handler(
        workers: &Workers,
        plugin: Arc<Plugin>,
        device: Arc<Device>,
        holding: Holding,
        span: Span,
    ) -> Self {
        let cancel = Cancel::default();
        let late = Instant::now() + plugin.limits().deadline + LATE;
        let stop = cancel.clone();
        let task = workers.run(move || span.in_scope(|| plugin.connect(device, holding, &stop)));
        Self::Handler { task, cancel, late }
    }

    /// Gives back what is held, after a word to the plugin if it wants one.
    pub(super) fn release(
        host: &Arc<Host>,
        disconnects: Option<(Arc<Plugin>, Arc<Device>)>,
        mut holding: Holding,
        span: Span,
    ) -> Self {
        let owned = Arc::clone(host);
        let task = host.workers.run(move || {
            let host = owned;
            span.in_scope(|| {
                let mut fault = None;
                if let Some((plugin, device)) = disconnects {
                    let (back, said) = plugin.disconnect(device, holding, &Cancel::default());
                    holding = back;
                    fault = said.err();
                }
                if let Some(fault) = &fault {
                    warn!(%fault, "the plugin did not disconnect well; what it held is given back all the same");
                }
                let failures = holding.release(&host.system, &host.plugins().release, &host.claims);
                (holding, failures, fault)
            })
        });
        Self::Release { task }
    }

    /// Asks the handler, if one runs, to end early.
    pub(super) fn stop_handler(&self) {
        if let Self::Handler { cancel, .. } = self {
            cancel.cancel();
        }
    }
}

/// What a worker thread brought back.
pub(super) enum Finished {
    Handler(Holding, Result<Connection, Fault>),
    /// With what could not be given back, and how the plugin failed when it was told of the end.
    Release(Holding, Vec<String>, Option<Fault>),
}

/// Waits for the worker thread, if there is one.
pub(super) async fn finished(job: &mut Option<Job>) -> Finished {
    let done = match job {
        None => std::future::pending().await,
        // A panic on a worker thread ends the daemon, see `main`: its journal is the safer witness then.
        Some(Job::Handler { task, .. }) => {
            let (holding, answer) = task.await.expect("worker threads do not panic");
            Finished::Handler(holding, answer)
        }
        Some(Job::Release { task }) => {
            let (holding, failures, fault) = task.await.expect("worker threads do not panic");
            Finished::Release(holding, failures, fault)
        }
    };
    *job = None;
    done
}
