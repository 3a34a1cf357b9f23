//! The task of one device: feeds its state machine, carries out the machine's actions, and reports how they ended.

mod attempt;
mod handler;
mod writes;

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use xenplug_runtime::DeviceResources;
use xenplug_xenbus::{DeviceFsm, DeviceInstance, Event, FsmAction, Mode, Observation, Phase};
use xenplug_xenstore::Error;

use self::attempt::Attempt;
use super::{
    context::DeviceContext,
    deadlines::{Deadlines, Timer},
    entry::{DeviceSlot, next_call},
    failure::Failure,
    job::Job,
    observe::Directory,
    removal_delay::removal_delay,
    script_calls::{Overdue, PendingCalls, SCRIPT_LIMIT, failed},
};
use crate::{chain::Chain, retry::is_final};

/// A device that recovery found in the journal.
pub(super) struct AdoptedDevice {
    pub(super) resources: DeviceResources,
    /// The reason why the device is lost, if it is.
    pub(super) failure: Option<Failure>,
}

struct Driver {
    context: Arc<DeviceContext>,
    instance: DeviceInstance,
    slot: Arc<DeviceSlot>,
    fsm: DeviceFsm,
    directory: Directory,
    calls: PendingCalls,
    last_read: Option<Observation>,
    attempt: Attempt,
    resources: Option<DeviceResources>,
    failure: Option<Failure>,
    job: Job,
    deadlines: Deadlines,
    /// The time that the last `disconnected` took to write.
    last_write: Duration,
}

/// Runs a device until nothing is left of it and it can be forgotten, or the daemon ends.
pub(super) async fn run(
    context: Arc<DeviceContext>,
    instance: DeviceInstance,
    slot: Arc<DeviceSlot>,
    fsm: DeviceFsm,
    adopted: Option<AdoptedDevice>,
    forget: impl Fn() -> bool,
) {
    let directory = Directory::of(&context, instance.clone(), fsm.phase());
    let (resources, failure) = adopted.map_or((None, None), |adopted| (Some(adopted.resources), adopted.failure));
    let plugin = resources
        .as_ref()
        .and_then(|resources| context.plugins.current().named(&resources.header().plugin).cloned());
    let mut driver = Driver {
        context,
        instance,
        slot,
        fsm,
        directory,
        calls: PendingCalls::default(),
        last_read: None,
        attempt: Attempt::of_plugin(plugin),
        resources,
        failure,
        job: Job::Idle,
        deadlines: Deadlines::default(),
        last_write: Duration::ZERO,
    };
    driver.update_view();
    driver.update_rest();
    while let Some(event) = driver.next().await {
        if driver.apply(event, &forget).await.is_break() {
            break;
        }
    }
    driver.slot.state.drop_calls();
}

impl Driver {
    /// Waits for the next event. Returns `None` when the daemon ends and no work is in flight.
    async fn next(&mut self) -> Option<Event> {
        let draining = self.context.daemon.draining.clone();
        loop {
            let deadline = self.deadlines.first(self.calls.until(), self.job.handler_late());
            let idle = self.job.is_idle();
            let event = tokio::select! {
                biased;
                finished = self.job.finished() => Some(self.finished(finished)),
                () = draining.cancelled(), if idle => return None,
                call = next_call(&self.slot) => Some(call.map_or(Event::Changed, |call| self.calls.take(call))),
                () = self.calls.withdrawn() => Some(Event::AddCancelled),
                timer = deadline.expired() => self.expired(timer).await,
            };
            if event.is_some() {
                return event;
            }
        }
    }

    async fn expired(&mut self, timer: Timer) -> Option<Event> {
        self.deadlines.clear(timer);
        match timer {
            Timer::CallOverdue => self.calls_overdue().await,
            Timer::Reread => Some(Event::Changed),
            Timer::HandlerLate => {
                self.handler_late().await;
                None
            }
            Timer::HandlerStart => self.run_handler().await,
        }
    }

    /// Applies an event, and the events that follow from it at once.
    async fn apply(&mut self, event: Event, forget: impl Fn() -> bool) -> ControlFlow<()> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let before = self.fsm.phase();
            let action = self.fsm.apply(&event);
            self.calls
                .settle(&self.fsm, self.failure.as_ref().map(|failure| &*failure.text));
            if self.fsm.phase().settled() || action == Some(FsmAction::RunHandler) {
                self.end_record();
            }
            if before != self.fsm.phase() {
                self.update_view();
            }
            self.update_rest();
            next = match action {
                Some(FsmAction::Forget) if self.resources.is_none() && forget() => return ControlFlow::Break(()),
                // The task was woken meanwhile, which is its next event; or the journal's record is still there.
                Some(FsmAction::Forget) => None,
                Some(action) => self.act(action).await,
                None => None,
            };
        }
        ControlFlow::Continue(())
    }

    async fn act(&mut self, action: FsmAction) -> Option<Event> {
        let _scripts_locked_out = self.attempt.script_lock.take();
        match action {
            FsmAction::ReadState(ticket) => match self.read_state().await {
                Ok(_) if self.is_lost() => Some(Event::Lost),
                Ok(observation) => Some(Event::StateRead(ticket, observation)),
                Err(error) => {
                    // A lost connection tells by itself when it is back.
                    if is_final(&error) {
                        let device = &self.instance;
                        warn!(%device, "{device}: cannot read the device: {error}");
                        self.deadlines.reread_soon();
                    }
                    None
                }
            },
            FsmAction::RunHandler => {
                self.failure = None;
                self.run_handler().await
            }
            FsmAction::StopHandler => self.stop_handler(),
            FsmAction::Publish => Some(self.publish().await),
            FsmAction::Withdraw => Some(self.withdraw().await),
            FsmAction::PublishFailure => Some(self.publish_failure().await),
            FsmAction::Release => self.release(),
            FsmAction::PublishDisconnected => Some(self.publish_disconnected().await),
            FsmAction::RemoveDirectory => {
                self.delay_removal().await;
                Some(self.remove_directory().await)
            }
            FsmAction::Forget => None,
        }
    }

    /// Reads the device: with the handler's input if the handler may run next.
    async fn read_state(&mut self) -> Result<Observation, Error> {
        let handler_next = match self.fsm.mode() {
            Mode::DriverDomain => self.fsm.phase() == Phase::Waiting,
            Mode::Dom0 => self.fsm.add_pending(),
        };
        let observation = if handler_next {
            let began = Instant::now();
            let (observation, snapshot) = self.directory.snapshot().await?;
            let device = &self.instance;
            debug!(%device, "{device}: read a snapshot in {} us", began.elapsed().as_micros());
            self.attempt.snapshot = snapshot;
            observation
        } else {
            self.directory.read_state().await?
        };
        self.last_read = Some(observation.clone());
        Ok(observation)
    }

    /// Tests whether a helper process has ended that the connected device needs, and sets the failure if so.
    fn is_lost(&mut self) -> bool {
        if self.fsm.phase() != Phase::Connected {
            return false;
        }
        let resources = self.resources.as_ref();
        let lost = resources.and_then(|resources| resources.loss(&self.context.shared));
        if let Some(cause) = &lost {
            self.fail(Failure::new(self.attempt.plugin_name(), cause));
        }
        lost.is_some()
    }

    /// Keeps the directory at state 6 so that a slow libxl still finds it. The maker of a request reads the request, and
    /// nothing else.
    async fn delay_removal(&self) {
        let (daemon, requests) = (&self.context.daemon, &self.context.requests);
        if requests.has(daemon.own, &self.instance.device) {
            return;
        }
        tokio::select! {
            () = sleep(removal_delay(self.last_write)) => {}
            () = daemon.draining.cancelled() => {}
        }
    }

    /// Removes the journal's record. The record outlives the release, so that a daemon that starts in between knows that
    /// the `connected` in the store is its own.
    fn end_record(&mut self) {
        let Some(resources) = &self.resources else { return };
        match resources.end() {
            Ok(()) => {
                self.resources = None;
                self.deadlines.released();
            }
            Err(error) => {
                let device = &self.instance;
                warn!(%device, "{device}: cannot remove the journal's record, which is tried again: {}", Chain(&error));
                self.deadlines.retry_release();
            }
        }
    }

    /// Reports a handler whose thread does not come back from the kernel, and lets another handler run. Its effects are
    /// undone when it comes back.
    async fn handler_late(&mut self) {
        self.job.give_up_permit();
        let failure = Failure::new(
            self.attempt.plugin_name(),
            "the kernel does not come back from a call; it is undone when it does",
        );
        self.calls.give_up(&failure.text);
        self.fail(failure.clone());
        self.write_failure(&failure).await;
    }

    /// Answers the script calls that cannot wait any longer. A handler that runs for them is stopped, as at its deadline;
    /// calls without a handler have failed.
    async fn calls_overdue(&mut self) -> Option<Event> {
        let Overdue { waiting, begun } = self.calls.overdue(Instant::now());
        let stopped = if begun { self.stop_handler() } else { None };
        if waiting.is_empty() {
            return stopped;
        }
        let cause = format!("not within {} s: {}", SCRIPT_LIMIT.as_secs(), self.missing());
        let failure = Failure::new("xenplugd", &cause);
        self.fail(failure.clone());
        if self.fsm.add_pending() {
            self.write_failure(&failure).await;
        }
        for call in waiting {
            call.answer(failed(&format!("xenplugd: {cause}")));
        }
        stopped.or_else(|| (self.fsm.add_pending() && !self.calls.any_add()).then_some(Event::AddCancelled))
    }

    /// Describes what the device lacks before its handler can run.
    fn missing(&self) -> String {
        let at = self.instance.device.kind.handler_state();
        match &self.last_read {
            _ if self.fsm.phase().holds() => "the device before it is not released yet".to_owned(),
            _ if self.fsm.read_pending() => "xenstore does not answer".to_owned(),
            None => "xenstore does not answer".to_owned(),
            Some(seen) if seen.state != at => format!(
                "the backend is in state {} ({}) and not in {} ({at})",
                seen.state.number(),
                seen.state,
                at.number()
            ),
            Some(seen) if seen.frontend_gone => "the guest is gone".to_owned(),
            Some(seen) if !seen.online => "online is 0".to_owned(),
            Some(seen) if !seen.netdev => format!("there is no link {}", self.instance.link()),
            Some(_) => "another operation on the device is in flight".to_owned(),
        }
    }

    fn fail(&mut self, failure: Failure) {
        let device = &self.instance;
        warn!(%device, "{device}: not connected: {}", failure.text);
        self.context.metrics.failed(&device.device.kind);
        self.failure = Some(failure);
    }

    /// Publishes to other tasks whether anything is held, or may be by the work in flight. A request waits for its end.
    fn update_rest(&self) {
        let at_rest = self.fsm.phase().settled() && !self.fsm.read_pending() && self.resources.is_none();
        let before = std::mem::replace(&mut self.slot.state.view().at_rest, at_rest);
        if at_rest && !before {
            let own = self.context.daemon.own;
            self.context.requests.wake_for(own, &self.instance.device);
        }
    }

    /// Publishes the device's state to the control socket.
    fn update_view(&self) {
        let phase = self.fsm.phase();
        let mut view = self.slot.state.view();
        view.phase = phase;
        view.since = SystemTime::now();
        view.vm = self.fsm.identity().and_then(|identity| identity.vm.clone());
        view.plugin = self.attempt.plugin.as_ref().map(|plugin| plugin.name().to_owned());
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
