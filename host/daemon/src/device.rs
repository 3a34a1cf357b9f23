//! One device's task: feeds its machine, does what the machine says, and tells it how that ended.

mod failure;
mod job;
mod parameters;
mod removal_delay;
mod script_calls;
mod work;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info, warn};
use xenplug_runtime::{Connection, Device, DeviceResources, Plugin};
use xenplug_xenbus::{DeviceFsm, DeviceInstance, Event, FsmAction, Identity, Mode, Observation, Phase, WriteOutcome};

pub(crate) use failure::Failure;
use job::{Job, finished};
use script_calls::{Overdue, PendingCalls, failed};
pub(crate) use script_calls::{ScriptArgs, ScriptCall};

use crate::{
    context::DaemonContext,
    directory::{Directory, Fingerprint, Snapshot},
    plugins::backoff::HandlerRun,
    registry::Entry,
    retry::{AGAIN, Pauses, is_final},
    script::LIMIT,
};

/// What start-up found of a device.
pub(crate) struct AdoptedDevice {
    pub(crate) resources: DeviceResources,
    /// What of it is gone.
    pub(crate) failure: Option<Failure>,
}

struct Task {
    host: Arc<DaemonContext>,
    part: DeviceInstance,
    entry: Arc<Entry>,
    machine: DeviceFsm,
    directory: Directory,
    calls: PendingCalls,
    /// What the last look found.
    seen: Option<Observation>,
    /// What the handler is to work on, from the look that wanted it to run.
    snapshot: Option<Snapshot>,
    plugin: Option<Arc<Plugin>>,
    device: Option<Arc<Device>>,
    /// What told it from others when its handler began.
    marks: Fingerprint,
    resources: Option<DeviceResources>,
    connection: Connection,
    failure: Option<Failure>,
    job: Option<Job>,
    permit: Option<OwnedSemaphorePermit>,
    /// How its plugin's handler is told of, when it has ended.
    run: Option<HandlerRun>,
    /// Until when its plugin is left alone, if its handler has to wait for that.
    paused: Option<Instant>,
    again: Option<Instant>,
    /// Before what is held is given back once more.
    pauses: Pauses,
    began: Instant,
    /// What the last word to the toolstack took.
    told_in: Duration,
}

/// Runs a device until nothing is left of it, or the daemon ends.
pub(crate) async fn run(
    host: Arc<DaemonContext>,
    part: DeviceInstance,
    entry: Arc<Entry>,
    machine: DeviceFsm,
    adopted: Option<AdoptedDevice>,
) {
    let directory = Directory::of(&host, part.clone(), machine.phase());
    let (resources, failure) = adopted.map_or((None, None), |adopted| (Some(adopted.resources), adopted.failure));
    let plugin = resources
        .as_ref()
        .and_then(|resources| host.plugins.current().named(&resources.header().plugin).cloned());
    let mut task = Task {
        host,
        part,
        entry,
        machine,
        directory,
        calls: PendingCalls::default(),
        seen: None,
        snapshot: None,
        plugin,
        device: None,
        marks: Fingerprint::default(),
        resources,
        connection: Connection::default(),
        failure,
        job: None,
        permit: None,
        run: None,
        paused: None,
        again: None,
        pauses: Pauses::default(),
        began: Instant::now(),
        told_in: Duration::ZERO,
    };
    task.tell();
    task.rest();
    while let Some(event) = task.next().await {
        if task.apply(event).await.is_break() {
            break;
        }
    }
    task.entry.refuse();
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
            let overdue = self.calls.until().unwrap_or(far);
            let paused = self.paused.unwrap_or(far);
            tokio::select! {
                biased;
                event = finished(&mut self.job) => return Some(self.ended(event)),
                () = draining.cancelled(), if self.job.is_none() => return None,
                ask = self.entry.woken() => {
                    return Some(ask.map_or(Event::Changed, |ask| self.calls.take(ask)));
                }
                () = self.calls.withdrawn() => return Some(Event::AddCancelled),
                () = sleep_until(overdue), if overdue < far => {
                    if let Some(event) = self.is_overdue().await {
                        return Some(event);
                    }
                }
                () = sleep_until(again), if self.again.is_some() => {
                    self.again = None;
                    return Some(Event::Changed);
                }
                () = sleep_until(late), if late < far => self.is_late().await,
                () = sleep_until(paused), if self.paused.is_some() => {
                    self.paused = None;
                    if let Some(event) = self.run_handler().await {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// Applies an event, and what follows from it at once.
    async fn apply(&mut self, event: Event) -> std::ops::ControlFlow<()> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let before = self.machine.phase();
            let action = self.machine.apply(&event);
            self.calls
                .settle(&self.machine, self.failure.as_ref().map(|failure| &*failure.text));
            if self.machine.phase().settled() || action == Some(FsmAction::RunHandler) {
                self.end_record();
            }
            if before != self.machine.phase() {
                self.tell();
            }
            self.rest();
            next = match action {
                Some(FsmAction::Forget) if self.resources.is_none() && self.host.registry.forget(&self.part) => {
                    return std::ops::ControlFlow::Break(());
                }
                // It was woken meanwhile, and that comes as the next event; or its record is still there.
                Some(FsmAction::Forget) => None,
                Some(action) => self.act(action).await,
                None => None,
            };
        }
        std::ops::ControlFlow::Continue(())
    }

    async fn act(&mut self, action: FsmAction) -> Option<Event> {
        match action {
            FsmAction::ReadState(ticket) => match self.read_state().await {
                Ok(_) if self.is_lost() => Some(Event::Lost),
                Ok(observation) => Some(Event::StateRead(ticket, observation)),
                Err(error) => {
                    // A lost connection tells by itself when it is back.
                    if is_final(&error) {
                        warn!(device = %self.part, %error, "the device could not be looked at");
                        self.again = Some(Instant::now() + AGAIN);
                    }
                    None
                }
            },
            FsmAction::RunHandler => {
                self.failure = None;
                self.run_handler().await
            }
            FsmAction::StopHandler => self.stop_handler(),
            FsmAction::Publish => {
                let outcome = match self.identity() {
                    Some(identity) => self.directory.publish(&identity, &self.marks, &self.connection).await,
                    None => Ok(WriteOutcome::Stale),
                };
                if let Some(resources) = &mut self.resources {
                    resources.unlock();
                }
                let published = match outcome {
                    Ok(published) => published,
                    // It may be written or not; the look that follows tells.
                    Err(error) if error.is_disconnected() => WriteOutcome::Unknown,
                    Err(error) => {
                        let plugin = self.plugin_name();
                        let cause = match error.is_quota() {
                            true => "; this domain's quota in xenstored is used up",
                            false => "",
                        };
                        self.failed(Failure::new(
                            &plugin,
                            &format!("its nodes could not be published: {error}{cause}"),
                        ));
                        WriteOutcome::Failed
                    }
                };
                if published == WriteOutcome::Done {
                    let took = self.began.elapsed();
                    self.host.metrics.connected(&self.part.device.kind, took);
                    info!(
                        device = %self.part, plugin = self.plugin_name(), micros = took.as_micros() as u64,
                        "connected"
                    );
                }
                Some(Event::Written(published))
            }
            FsmAction::Withdraw => {
                let outcome = match self.identity() {
                    Some(identity) => self.directory.retract(&identity, None).await,
                    None => Ok(WriteOutcome::Stale),
                };
                Some(self.published(outcome, "that it is no longer connected"))
            }
            FsmAction::PublishFailure => {
                let failure = self
                    .failure
                    .clone()
                    .unwrap_or_else(|| Failure::new(&self.plugin_name(), "failed for a reason that was not kept"));
                Some(self.publish_failure(&failure).await)
            }
            FsmAction::Release => self.release(),
            FsmAction::PublishDisconnected => {
                let begun = Instant::now();
                let outcome = match self.identity() {
                    Some(identity) => self.directory.publish_disconnected(&identity).await,
                    None => Ok(WriteOutcome::Stale),
                };
                self.told_in = begun.elapsed();
                Some(self.published(outcome, "that it is disconnected"))
            }
            FsmAction::RemoveDirectory => {
                self.be_seen().await;
                let outcome = match self.identity() {
                    Some(identity) => self.directory.remove(&identity).await,
                    None => Ok(WriteOutcome::Stale),
                };
                Some(self.published(outcome, "its removal"))
            }
            FsmAction::Forget => None,
        }
    }

    /// Looks at the device. One that waits for its handler is examined at once.
    async fn read_state(&mut self) -> Result<Observation, xenplug_xenstore::Error> {
        let waits = match self.machine.mode() {
            Mode::DriverDomain => self.machine.phase() == Phase::Waiting,
            Mode::Dom0 => self.machine.add_pending(),
        };
        let observation = if waits {
            let begun = Instant::now();
            let (observation, snapshot) = self.directory.snapshot().await?;
            debug!(device = %self.part, micros = begun.elapsed().as_micros() as u64, "examined");
            self.snapshot = snapshot;
            observation
        } else {
            self.directory.read_state().await?
        };
        self.seen = Some(observation.clone());
        Ok(observation)
    }

    /// Whether a helper has ended that the connected device needs; says so if it has.
    fn is_lost(&mut self) -> bool {
        if self.machine.phase() != Phase::Connected {
            return false;
        }
        let lost = self
            .resources
            .as_ref()
            .and_then(|resources| resources.lost(&self.host.shared));
        if let Some(cause) = &lost {
            let plugin = self.plugin_name();
            self.failed(Failure::new(&plugin, cause));
        }
        lost.is_some()
    }

    /// Leaves the directory at state 6 until the toolstack has seen it there, or the daemon is to end. Who asked for the
    /// device looks at the request, and nowhere else.
    async fn be_seen(&self) {
        if self.host.requests.serve(self.host.own, &self.part.device) {
            return;
        }
        tokio::select! {
            () = sleep(removal_delay::pause(self.told_in)) => {}
            () = self.host.draining.cancelled() => {}
        }
    }

    /// Removes the record of what was held. It outlives the release, so that a daemon that starts in between knows whose
    /// `connected` it finds in the store.
    fn end_record(&mut self) {
        let Some(resources) = &self.resources else { return };
        match resources.end() {
            Ok(()) => (self.resources, self.pauses) = (None, Pauses::default()),
            Err(error) => {
                warn!(device = %self.part, %error, "the journal's record could not be removed; that is tried again");
                self.again = Some(Instant::now() + self.pauses.next());
            }
        }
    }

    /// The handler's thread is in the kernel and does not come back: that is told, and its place given to others. What
    /// it has done is undone when it returns.
    async fn is_late(&mut self) {
        self.permit = None;
        let failure = Failure::new(
            &self.plugin_name(),
            "the kernel does not come back from a call; it is undone when it does",
        );
        self.calls.give_up(&failure.text);
        self.failed(failure);
        self.tell_failure().await;
    }

    /// Those who asked cannot wait any longer: a handler that runs for them is stopped, as at its deadline; and what
    /// none has begun for has failed.
    async fn is_overdue(&mut self) -> Option<Event> {
        let Overdue { waiting, begun } = self.calls.overdue(Instant::now());
        let stopped = if begun { self.stop_handler() } else { None };
        if waiting.is_empty() {
            return stopped;
        }
        let cause = format!("not within {} s: {}", LIMIT.as_secs(), self.awaited());
        self.failed(Failure::new("xenplugd", &cause));
        if self.machine.add_pending() {
            self.tell_failure().await;
        }
        for ask in waiting {
            ask.answer(failed(&format!("xenplugd: {cause}")));
        }
        stopped.or_else(|| (self.machine.add_pending() && !self.calls.any_add()).then_some(Event::AddCancelled))
    }

    /// What the device is not ready for a handler for, in words.
    fn awaited(&self) -> String {
        let at = self.part.device.kind.handler_state();
        match &self.seen {
            _ if self.machine.phase().holds() => "what was here before is not given back yet".to_owned(),
            _ if self.machine.read_pending() => "xenstore does not answer".to_owned(),
            None => "xenstore does not answer".to_owned(),
            Some(seen) if seen.state != at => format!(
                "the backend is in state {} ({}) and not in {} ({at})",
                seen.state.number(),
                seen.state,
                at.number()
            ),
            Some(seen) if seen.frontend_gone => "the guest has gone".to_owned(),
            Some(seen) if !seen.online => "online is 0".to_owned(),
            Some(seen) if !seen.netdev => {
                format!("there is no link {}", self.part.link())
            }
            Some(_) => "something else is being done with it".to_owned(),
        }
    }

    /// Publishes why the device has failed, while its machine goes on.
    async fn tell_failure(&mut self) {
        if let Some(failure) = self.failure.clone() {
            self.publish_failure(&failure).await;
        }
    }

    async fn publish_failure(&mut self, failure: &Failure) -> Event {
        let told = self
            .directory
            .publish_failure(&self.machine, &self.marks, failure.status, &failure.text);
        let outcome = told.await;
        self.published(outcome, "why it failed")
    }

    fn published(&mut self, outcome: Result<WriteOutcome, xenplug_xenstore::Error>, what: &str) -> Event {
        Event::Written(outcome.unwrap_or_else(|error| {
            warn!(device = %self.part, %error, "{what} could not be published");
            if error.is_disconnected() {
                return WriteOutcome::Unknown;
            }
            self.again = Some(Instant::now() + AGAIN);
            WriteOutcome::Failed
        }))
    }

    fn failed(&mut self, failure: Failure) {
        warn!(device = %self.part, error = failure.text, "not connected");
        self.host.metrics.failed(&self.part.device.kind);
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

    /// Says whether anything is held, or may be by what is under way. A request waits for its end.
    fn rest(&self) {
        let at_rest = self.machine.phase().settled() && !self.machine.read_pending() && self.resources.is_none();
        let before = std::mem::replace(&mut self.entry.view().at_rest, at_rest);
        if at_rest && !before {
            self.host.requests.wake_of(self.host.own, &self.part.device);
        }
    }

    /// Tells the control socket where the device is.
    fn tell(&self) {
        let phase = self.machine.phase();
        let mut view = self.entry.view();
        view.phase = phase;
        view.since = SystemTime::now();
        view.vm = self.machine.identity().and_then(|identity| identity.vm.clone());
        view.plugin = self.plugin.as_ref().map(|plugin| plugin.name().to_owned());
        view.held = self
            .resources
            .as_ref()
            .map(DeviceResources::describe)
            .unwrap_or_default();
        view.error = match phase {
            Phase::Connected => None,
            _ => self.failure.as_ref().map(|failure| failure.text.clone()),
        };
    }
}
