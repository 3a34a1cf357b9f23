//! One device's task: feeds its machine, does what the machine says, and tells it how that ended.

mod parameters;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::OwnedSemaphorePermit,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info, info_span, warn};
use xenplug_runtime::{Cancel, Connection, Device, Fault, Header, Holding, Plugin, clean};
use xenplug_xenbus::{Action, BackendPath, DeviceKey, Event, Identity, Machine, Observation, Phase, Published};

use crate::{
    directory::{Directory, Snapshot, is_final},
    host::Host,
    registry::Entry,
};

/// How long after a handler's deadline its thread may be late before that is published: it is in the kernel then.
const LATE: Duration = Duration::from_secs(2);
/// How soon to try again what the machine or the store refused.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes of the longest `hotplug-error`: well below the 2048 that a node may have.
const ERROR_MAX: usize = 1000;

/// What start-up found of a device.
pub(crate) struct Adopted {
    pub(crate) holding: Holding,
    /// What of it is gone.
    pub(crate) failure: Option<Failure>,
}

/// Why a device is not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `error` or `busy`.
    pub(crate) status: &'static str,
    /// One line, beginning with the plugin's name.
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(plugin: &str, cause: &str) -> Self {
        Self {
            status: "error",
            text: clean(&format!("{plugin}: {cause}"), ERROR_MAX),
        }
    }

    fn of(plugin: &str, fault: &Fault) -> Self {
        let status = if matches!(fault, Fault::Busy(_)) {
            "busy"
        } else {
            "error"
        };
        Self {
            status,
            ..Self::new(plugin, &fault.to_string())
        }
    }
}

/// What a worker thread was asked to do.
enum Job {
    /// A handler runs.
    Handler {
        task: JoinHandle<(Holding, Result<Connection, Fault>)>,
        cancel: Cancel,
        late: Instant,
    },
    /// What is held is being given back.
    Release { task: JoinHandle<(Holding, Vec<String>)> },
}

struct Task {
    host: Arc<Host>,
    key: DeviceKey,
    entry: Arc<Entry>,
    machine: Machine,
    directory: Directory,
    /// What the handler is to work on, from the look that wanted it to run.
    snapshot: Option<Snapshot>,
    plugin: Option<Arc<Plugin>>,
    device: Option<Arc<Device>>,
    holding: Option<Holding>,
    connection: Connection,
    failure: Option<Failure>,
    job: Option<Job>,
    permit: Option<OwnedSemaphorePermit>,
    again: Option<Instant>,
    began: Instant,
}

/// Runs a device until nothing is left of it, or the daemon ends.
pub(crate) async fn run(
    host: Arc<Host>,
    key: DeviceKey,
    entry: Arc<Entry>,
    machine: Machine,
    adopted: Option<Adopted>,
) {
    let path = BackendPath {
        backend: host.own,
        key: key.clone(),
    };
    let directory = Directory::new(
        host.client.clone(),
        host.system.clone(),
        Arc::clone(&host.domains),
        path,
    );
    let (holding, failure) = adopted.map_or((None, None), |adopted| (Some(adopted.holding), adopted.failure));
    let plugin = holding
        .as_ref()
        .and_then(|holding| host.plugins().named(&holding.header().plugin).cloned());
    let mut task = Task {
        host,
        key,
        entry,
        machine,
        directory,
        snapshot: None,
        plugin,
        device: None,
        holding,
        connection: Connection::default(),
        failure,
        job: None,
        permit: None,
        again: None,
        began: Instant::now(),
    };
    task.tell();
    while let Some(event) = task.next().await {
        if task.apply(event).await.is_break() {
            break;
        }
    }
}

impl Task {
    /// The next event; none when the daemon ends and nothing is under way.
    async fn next(&mut self) -> Option<Event> {
        let draining = self.host.draining.clone();
        loop {
            let far = Instant::now() + Duration::from_secs(86_400);
            let again = self.again.unwrap_or(far);
            let late = match &self.job {
                Some(Job::Handler { late, .. }) if self.permit.is_some() => *late,
                _ => far,
            };
            tokio::select! {
                biased;
                event = finished(&mut self.job) => return Some(self.ended(event)),
                () = draining.cancelled(), if self.job.is_none() => return None,
                () = self.entry.woken() => return Some(Event::Changed),
                () = sleep_until(again), if self.again.is_some() => {
                    self.again = None;
                    return Some(Event::Changed);
                }
                () = sleep_until(late), if late < far => self.is_late().await,
            }
        }
    }

    /// Applies an event, and what follows from it at once.
    async fn apply(&mut self, event: Event) -> std::ops::ControlFlow<()> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let before = self.machine.phase();
            let action = self.machine.apply(&event);
            if before != self.machine.phase() {
                self.tell();
            }
            next = match action {
                Some(Action::Forget) if self.host.registry.forget(&self.key) => {
                    return std::ops::ControlFlow::Break(());
                }
                // It was woken meanwhile, and that comes as the next event.
                Some(Action::Forget) => None,
                Some(action) => self.act(action).await,
                None => None,
            };
        }
        std::ops::ControlFlow::Continue(())
    }

    async fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Look(ticket) => match self.look().await {
                Ok(observation) => Some(Event::Looked(ticket, observation)),
                Err(error) => {
                    // A lost connection tells by itself when it is back.
                    if is_final(&error) {
                        warn!(device = %self.key, %error, "the device could not be looked at");
                        self.again = Some(Instant::now() + AGAIN);
                    }
                    None
                }
            },
            Action::RunHandler => {
                self.began = Instant::now();
                self.failure = None;
                match self.start_handler().await {
                    Ok(()) => None,
                    Err(failure) => {
                        self.failed(failure);
                        Some(Event::HandlerFailed)
                    }
                }
            }
            Action::StopHandler => {
                if let Some(Job::Handler { cancel, .. }) = &self.job {
                    cancel.cancel();
                }
                None
            }
            Action::Publish => {
                let outcome = match (self.identity(), &self.device) {
                    (Some(identity), Some(device)) => {
                        self.directory.publish(&identity, &device.nodes, &self.connection).await
                    }
                    _ => Ok(Published::Stale),
                };
                let published = match outcome {
                    Ok(published) => published,
                    // It may be written or not; the look that follows tells.
                    Err(error) if error.is_disconnected() => Published::Unknown,
                    Err(error) => {
                        let plugin = self.plugin_name();
                        self.failed(Failure::new(
                            &plugin,
                            &format!("its nodes could not be published: {error}"),
                        ));
                        Published::Failed
                    }
                };
                if published == Published::Done {
                    let took = self.began.elapsed();
                    self.host.metrics.connected(&self.key.kind, took);
                    info!(
                        device = %self.key, plugin = self.plugin_name(), micros = took.as_micros() as u64,
                        "connected"
                    );
                }
                Some(Event::Published(published))
            }
            Action::PublishFailure => {
                let failure = self
                    .failure
                    .clone()
                    .unwrap_or_else(|| Failure::new(&self.plugin_name(), "failed for a reason that was not kept"));
                let outcome = match self.identity() {
                    Some(identity) => {
                        self.directory
                            .publish_failure(&identity, failure.status, &failure.text)
                            .await
                    }
                    None => Ok(Published::Stale),
                };
                Some(self.published(outcome, "why it failed"))
            }
            Action::Release => self.release(),
            Action::PublishDisconnected => {
                let outcome = match self.identity() {
                    Some(identity) => self.directory.publish_disconnected(&identity).await,
                    None => Ok(Published::Stale),
                };
                Some(self.published(outcome, "that it is disconnected"))
            }
            Action::RemoveDirectory => {
                let outcome = match self.identity() {
                    Some(identity) => self.directory.remove(&identity).await,
                    None => Ok(Published::Stale),
                };
                Some(self.published(outcome, "its removal"))
            }
            Action::Forget => None,
        }
    }

    /// Looks at the device. One that waits is examined, since what it waits for is its handler.
    async fn look(&mut self) -> Result<Observation, xenplug_xenstore::Error> {
        if self.machine.phase() != Phase::Waiting {
            return self.directory.look().await;
        }
        let begun = Instant::now();
        let (observation, snapshot) = self.directory.examine().await?;
        debug!(device = %self.key, micros = begun.elapsed().as_micros() as u64, "examined");
        self.snapshot = snapshot;
        Ok(observation)
    }

    /// Prepares the handler's call and starts it on a worker thread.
    async fn start_handler(&mut self) -> Result<(), Failure> {
        let unseen = |cause: &str| Failure::new("xenplugd", &format!("the device could not be read: {cause}"));
        let snapshot = match self.snapshot.take() {
            Some(snapshot) => snapshot,
            // It was found ready by a mere look. If it has changed since, its publication will find out.
            None => {
                let examined = self
                    .directory
                    .examine()
                    .await
                    .map_err(|error| unseen(&error.to_string()))?;
                examined.1.ok_or_else(|| unseen("its directory has gone"))?
            }
        };
        let identity = self.identity().ok_or_else(|| unseen("it has no identity"))?;
        let (plugin, mut device) = parameters::check(&self.host, &self.key, &snapshot)?;
        self.plugin = Some(Arc::clone(&plugin));
        if plugin.grants().guest {
            device.vm = identity.vm.clone();
            device.vm_name = self.directory.vm_name().await;
        }
        let device = Arc::new(device);
        let header = Header {
            identity,
            plugin: plugin.name().to_owned(),
            vms: snapshot.vms,
            introduced: snapshot.introduced,
        };
        let holding = Holding::begin(&self.host.journal, header)
            .map_err(|error| Failure::new(plugin.name(), &error.to_string()))?;
        self.device = Some(Arc::clone(&device));
        // Never closed, so only waiting can happen here; what changes meanwhile is seen afterwards.
        self.permit = Arc::clone(&self.host.events).acquire_owned().await.ok();
        let cancel = Cancel::default();
        let late = Instant::now() + plugin.limits().deadline + LATE;
        let span = info_span!("connect", device = %self.key, plugin = plugin.name());
        let stop = cancel.clone();
        let task = spawn_blocking(move || span.in_scope(|| plugin.connect(device, holding, &stop)));
        self.job = Some(Job::Handler { task, cancel, late });
        Ok(())
    }

    /// Gives back what is held, on a worker thread.
    fn release(&mut self) -> Option<Event> {
        let Some(mut holding) = self.holding.take() else {
            return Some(Event::Released);
        };
        let host = Arc::clone(&self.host);
        let plugin = self.plugin.clone().filter(|plugin| plugin.disconnects());
        let device = self.device.take();
        let span = info_span!("disconnect", device = %self.key, plugin = self.plugin_name());
        let task = spawn_blocking(move || {
            span.in_scope(|| {
                if let (Some(plugin), Some(device)) = (plugin, device) {
                    let (back, said) = plugin.disconnect(device, holding, &Cancel::default());
                    holding = back;
                    if let Err(fault) = said {
                        warn!(%fault, "the plugin did not disconnect well; what it held is given back all the same");
                    }
                }
                let failures = holding.release(&host.system, &host.plugins().release, &host.claims);
                (holding, failures)
            })
        });
        self.job = Some(Job::Release { task });
        None
    }

    /// Takes what a worker thread brings back.
    fn ended(&mut self, done: Finished) -> Event {
        self.permit = None;
        match done {
            Finished::Handler(holding, answer) => {
                debug!(device = %self.key, micros = self.began.elapsed().as_micros() as u64, "the handler has returned");
                self.holding = Some(holding);
                match answer {
                    Ok(connection) => {
                        self.connection = connection;
                        Event::HandlerDone
                    }
                    Err(fault) => {
                        let plugin = self.plugin_name();
                        self.failed(Failure::of(&plugin, &fault));
                        Event::HandlerFailed
                    }
                }
            }
            Finished::Release(holding, failures) if failures.is_empty() => {
                info!(device = %self.key, plugin = holding.header().plugin, "released");
                if let Err(error) = holding.end() {
                    // It holds nothing; the next start removes it.
                    warn!(device = %self.key, %error, "the journal's record could not be removed");
                }
                Event::Released
            }
            Finished::Release(holding, failures) => {
                error!(device = %self.key, failures = failures.join("; "), "not everything could be given back");
                self.failure = Some(Failure::new(&holding.header().plugin, &failures.join("; ")));
                self.holding = Some(holding);
                self.again = Some(Instant::now() + AGAIN);
                Event::ReleaseFailed
            }
        }
    }

    /// The handler's thread is in the kernel and does not come back: that is told, and its place given to others. What
    /// it has done is undone when it returns.
    async fn is_late(&mut self) {
        self.permit = None;
        let plugin = self.plugin_name();
        self.failed(Failure::new(
            &plugin,
            "the kernel does not come back from a call; it is undone when it does",
        ));
        if let (Some(identity), Some(failure)) = (self.identity(), self.failure.clone()) {
            let outcome = self
                .directory
                .publish_failure(&identity, failure.status, &failure.text)
                .await;
            self.published(outcome, "that its handler is late");
        }
    }

    fn published(&mut self, outcome: Result<Published, xenplug_xenstore::Error>, what: &str) -> Event {
        Event::Published(outcome.unwrap_or_else(|error| {
            warn!(device = %self.key, %error, "{what} could not be published");
            if error.is_disconnected() {
                return Published::Unknown;
            }
            self.again = Some(Instant::now() + AGAIN);
            Published::Failed
        }))
    }

    fn failed(&mut self, failure: Failure) {
        warn!(device = %self.key, error = failure.text, "not connected");
        self.host.metrics.failed(&self.key.kind);
        self.failure = Some(failure);
    }

    fn identity(&self) -> Option<Identity> {
        self.machine.identity().cloned()
    }

    fn plugin_name(&self) -> String {
        self.plugin
            .as_ref()
            .map_or("xenplugd", |plugin| plugin.name())
            .to_owned()
    }

    /// Tells the control socket where the device is.
    fn tell(&self) {
        let phase = self.machine.phase();
        let mut view = self.entry.view();
        view.phase = phase;
        view.since = SystemTime::now();
        view.vm = self.machine.identity().and_then(|identity| identity.vm.clone());
        view.plugin = self.plugin.as_ref().map(|plugin| plugin.name().to_owned());
        view.held = self.holding.as_ref().map(Holding::describe).unwrap_or_default();
        view.error = match phase {
            Phase::Connected => None,
            _ => self.failure.as_ref().map(|failure| failure.text.clone()),
        };
    }
}

/// What a worker thread brought back.
enum Finished {
    Handler(Holding, Result<Connection, Fault>),
    Release(Holding, Vec<String>),
}

/// Waits for the worker thread, if there is one.
async fn finished(job: &mut Option<Job>) -> Finished {
    let done = match job {
        None => std::future::pending().await,
        // A panic on a worker thread ends the daemon, see `main`: its journal is the safer witness then.
        Some(Job::Handler { task, .. }) => {
            let (holding, answer) = task.await.expect("worker threads do not panic");
            Finished::Handler(holding, answer)
        }
        Some(Job::Release { task }) => {
            let (holding, failures) = task.await.expect("worker threads do not panic");
            Finished::Release(holding, failures)
        }
    };
    *job = None;
    done
}
