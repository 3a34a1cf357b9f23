//! The task of one request: looks, and does in the same transaction what is next, until there is neither a request nor
//! anything that was made for one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};
use xenplug_hotplug::{
    RequestId, RequestPath,
    daemon::{DaemonAction, next},
};
use xenplug_xenbus::Kind;
use xenplug_xenstore::Error;

use super::{
    act::act,
    read::{Sight, read_request},
};
use crate::{
    context::DaemonContext,
    directory::RETRY,
    retry::{AGAIN, is_final},
};

/// How soon to look again whether the kernel has let go: at first, and at most.
const LINGERS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// How often a device cannot be made before that is its end.
const TRIES: u32 = 3;

/// A request, as others see it.
#[derive(Default)]
pub(super) struct RequestTask {
    notify: Notify,
    /// Whether it was woken since it last began to look.
    woken: AtomicBool,
    /// The backend that is there for it, and the guest's `vm` node.
    serves: Mutex<Option<(Kind, String)>>,
}

impl RequestTask {
    pub(super) fn wake(&self) {
        self.woken.store(true, Relaxed);
        self.notify.notify_one();
    }

    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Relaxed)
    }

    /// The guest's `vm` node, if a backend of that kind is there for the request.
    pub(super) fn vm(&self, kind: &Kind) -> Option<String> {
        // Every change is one assignment, so a poisoned one is still whole.
        let serves = self.serves.lock().unwrap_or_else(PoisonError::into_inner);
        let (serves, vm) = serves.as_ref()?;
        (serves == kind && !vm.is_empty()).then(|| vm.clone())
    }

    /// Whether a backend of that kind is there for the request.
    pub(super) fn serves(&self, kind: &Kind) -> bool {
        let serves = self.serves.lock().unwrap_or_else(PoisonError::into_inner);
        serves.as_ref().is_some_and(|(serves, _)| serves == kind)
    }

    fn serve(&self, kind: Option<Kind>, vm: &str) {
        let serves = kind.map(|kind| (kind, vm.to_owned()));
        *self.serves.lock().unwrap_or_else(PoisonError::into_inner) = serves;
    }
}

/// Runs a request until it is over, or the daemon ends.
pub(super) async fn run(host: Arc<DaemonContext>, path: RequestPath, place: Arc<RequestTask>) {
    let mut task = Task {
        host,
        path,
        place,
        failed: None,
        lingers: LINGERS.0,
    };
    let mut again = None;
    loop {
        let far = Instant::now() + Duration::from_secs(86_400);
        tokio::select! {
            biased;
            () = task.host.draining.cancelled() => return,
            () = task.place.notify.notified() => {}
            () = sleep_until(again.unwrap_or(far)), if again.is_some() => {}
        }
        task.place.woken.store(false, Relaxed);
        again = match task.turn().await {
            Ok(Rest::Over) if task.host.requests.forget(path) => return,
            Ok(Rest::Over | Rest::Waits) => None,
            Ok(Rest::Lingers) => Some(Instant::now() + task.linger()),
            Err(error) => {
                if is_final(&error) {
                    warn!(request = %path, %error, "the request could not be served; it is tried again");
                }
                Some(Instant::now() + AGAIN)
            }
        };
    }
}

/// Why nothing is next.
enum Rest {
    /// Something has to change.
    Waits,
    /// The kernel has to let go, and does not tell when.
    Lingers,
    /// There is no request, and nothing that was made for one.
    Over,
}

/// What ends a transaction before its time.
enum End {
    Rest(Rest),
    Store(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// A device that could not be made.
struct Failed {
    times: u32,
    refusal: (RequestId, String),
}

struct Task {
    host: Arc<DaemonContext>,
    path: RequestPath,
    place: Arc<RequestTask>,
    failed: Option<Failed>,
    lingers: Duration,
}

impl Task {
    /// Does what is next until nothing is.
    async fn turn(&mut self) -> Result<Rest, Error> {
        loop {
            let (mut request_id, path) = (None, self.path);
            let refusal = self.failed.as_ref().filter(|failed| failed.times >= TRIES);
            let refusal = refusal.map(|failed| &failed.refusal);
            let done = self
                .host
                .client
                .transaction(&RETRY, async |transaction| {
                    let sight = read_request(transaction, &self.host, path, refusal).await?;
                    self.note(&sight);
                    let Some(action) = next(&sight.seen) else {
                        return Err(End::Rest(rest(&sight)));
                    };
                    if let (DaemonAction::CreateBackend, Some(request)) = (&action, &sight.seen.request) {
                        request_id = Some(request.id);
                        // The device's task looks as soon as this is committed.
                        self.place.serve(Some(sight.kind.clone()), &request.vm);
                    }
                    act(transaction, path, &sight, &action).await?;
                    Ok(action)
                })
                .await;
            match (done, request_id) {
                (Ok(action), _) => {
                    info!(request = %path, ?action, "done for a toolstack");
                    self.lingers = LINGERS.0;
                }
                (Err(End::Rest(rest)), _) => return Ok(rest),
                (Err(End::Store(error)), Some(id)) if is_final(&error) => self.not_made(id, &error),
                (Err(End::Store(error)), _) => return Err(error),
            }
        }
    }

    /// Remembers what there is, for those who look at the device.
    fn note(&self, sight: &Sight) {
        let seen = &sight.seen;
        if let (Some(request), Some(backend)) = (&seen.request, &seen.backend)
            && backend.request_id == Some(request.id)
        {
            self.place.serve(Some(sight.kind.clone()), &request.vm);
        } else if !seen.held {
            self.place.serve(None, "");
        }
    }

    /// The store does not let the device be made. A quota stays used up; anything else may be that its guest goes just now.
    fn not_made(&mut self, id: RequestId, error: &Error) {
        let (tries, cause) = match error.is_quota() {
            true => (TRIES, "; this domain's quota in xenstored is used up"),
            false => (1, ""),
        };
        let before = self.failed.take().filter(|failed| failed.refusal.0 == id);
        let text = format!("xenplugd: the device could not be made: {error}{cause}");
        warn!(request = %self.path, "{text}");
        self.failed = Some(Failed {
            times: before.map_or(0, |failed| failed.times) + tries,
            refusal: (id, text),
        });
    }

    /// How long to leave the kernel alone.
    fn linger(&mut self) -> Duration {
        let pause = self.lingers;
        self.lingers = (pause * 2).min(LINGERS.1);
        pause
    }
}

fn rest(sight: &Sight) -> Rest {
    let seen = &sight.seen;
    let ours = seen
        .backend
        .as_ref()
        .is_some_and(|backend| backend.request_id.is_some());
    match (&seen.request, sight.lingers) {
        (_, true) => Rest::Lingers,
        (None, false) if !ours => Rest::Over,
        _ => Rest::Waits,
    }
}
