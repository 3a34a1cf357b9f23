//! The task of one request: reads it and carries out the next action in the same transaction, until there is neither a
//! request nor anything that was created for one.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use xenplug_hotplug::{
    RequestId, RequestPath,
    daemon::{DaemonAction, next},
};
use xenplug_xenstore::Error;

use super::{
    act::act,
    context::RequestContext,
    read::{RequestSnapshot, read_request},
};
use crate::{
    device::RETRY,
    request_index::RequestSlot,
    retry::{AGAIN, is_final},
};

/// The pauses between tests whether the kernel still holds something: the first and the longest.
const LINGER: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// The tries to create a device before its request is refused.
const TRIES: u32 = 3;

/// Runs a request until it is over, or the daemon ends.
pub(super) async fn run(context: Arc<RequestContext>, path: RequestPath, slot: Arc<RequestSlot>) {
    let mut task = Task {
        context,
        path,
        slot,
        failed: None,
        lingers: LINGER.0,
    };
    let mut again = None;
    loop {
        let far = Instant::now() + Duration::from_secs(86_400);
        tokio::select! {
            biased;
            () = task.context.daemon.draining.cancelled() => return,
            () = task.slot.woken() => {}
            () = sleep_until(again.unwrap_or(far)), if again.is_some() => {}
        }
        again = match task.turn().await {
            Ok(Rest::Over) if task.context.index.0.forget(&path) => return,
            Ok(Rest::Over | Rest::Waits) => None,
            Ok(Rest::Lingers) => Some(Instant::now() + task.linger()),
            Err(error) => {
                if is_final(&error) {
                    warn!(request = %path, "{path}: cannot serve the request, which is tried again: {error}");
                }
                Some(Instant::now() + AGAIN)
            }
        };
    }
}

/// The reason why there is no next action.
enum Rest {
    /// Something else has to change first.
    Waits,
    /// The kernel still holds something, and does not tell when it no longer does.
    Lingers,
    /// There is no request, and nothing that was created for one.
    Over,
}

/// The reason for which a transaction is abandoned.
enum End {
    Rest(Rest),
    Store(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// The failed tries to create a device.
struct Failed {
    times: u32,
    refusal: (RequestId, String),
}

struct Task {
    context: Arc<RequestContext>,
    path: RequestPath,
    slot: Arc<RequestSlot>,
    failed: Option<Failed>,
    lingers: Duration,
}

impl Task {
    /// Carries out actions until there is none.
    async fn turn(&mut self) -> Result<Rest, Error> {
        loop {
            let (mut request_id, path) = (None, self.path);
            let refusal = self.failed.as_ref().filter(|failed| failed.times >= TRIES);
            let refusal = refusal.map(|failed| &failed.refusal);
            let done = self
                .context
                .daemon
                .store
                .transaction(&RETRY, async |transaction| {
                    let snapshot = read_request(transaction, &self.context, path, refusal).await?;
                    self.note(&snapshot);
                    let Some(action) = next(&snapshot.seen) else {
                        return Err(End::Rest(rest(&snapshot)));
                    };
                    if let (DaemonAction::CreateBackend, Some(request)) = (&action, &snapshot.seen.request) {
                        request_id = Some(request.id);
                        // The device's task reads it as soon as this is committed.
                        self.slot.state.set_backend(snapshot.kind.clone(), &request.vm);
                    }
                    act(transaction, path, &snapshot, &action).await?;
                    Ok(action)
                })
                .await;
            match (done, request_id) {
                (Ok(action), _) => {
                    info!(request = %path, ?action, "{path}: {action:?} done for a toolstack");
                    self.lingers = LINGER.0;
                }
                (Err(End::Rest(rest)), _) => return Ok(rest),
                (Err(End::Store(error)), Some(id)) if is_final(&error) => self.not_created(id, &error),
                (Err(End::Store(error)), _) => return Err(error),
            }
        }
    }

    /// Notes the request's backend for the device's task.
    fn note(&self, snapshot: &RequestSnapshot) {
        let seen = &snapshot.seen;
        if let (Some(request), Some(backend)) = (&seen.request, &seen.backend)
            && backend.request_id == Some(request.id)
        {
            self.slot.state.set_backend(snapshot.kind.clone(), &request.vm);
        } else if !seen.held {
            self.slot.state.clear_backend();
        }
    }

    /// Counts a failed try to create the device. A quota stays used up; for other errors the guest may just be going.
    fn not_created(&mut self, id: RequestId, error: &Error) {
        let (tries, hint) = match error.is_quota() {
            true => (TRIES, "; this domain's quota in xenstored is used up"),
            false => (1, ""),
        };
        let before = self.failed.take().filter(|failed| failed.refusal.0 == id);
        let text = format!("xenplugd: cannot create the device: {error}{hint}");
        warn!(request = %self.path, "{}: {text}", self.path);
        self.failed = Some(Failed {
            times: before.map_or(0, |failed| failed.times) + tries,
            refusal: (id, text),
        });
    }

    /// Returns the pause before the next test of the kernel.
    fn linger(&mut self) -> Duration {
        let pause = self.lingers;
        self.lingers = (pause * 2).min(LINGER.1);
        pause
    }
}

fn rest(snapshot: &RequestSnapshot) -> Rest {
    let seen = &snapshot.seen;
    let ours = seen
        .backend
        .as_ref()
        .is_some_and(|backend| backend.request_id.is_some());
    match (&seen.request, snapshot.lingers) {
        (_, true) => Rest::Lingers,
        (None, false) if !ours => Rest::Over,
        _ => Rest::Waits,
    }
}
