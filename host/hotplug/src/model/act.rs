//! What the sides' steps change: the toolstack's and the daemon's transactions, and the device's machine.

use xenplug_xenbus::{HotplugStatus, XenbusState};

use super::{
    Mistake, Rules,
    world::{Daemon, ModelPhase, World},
};
use crate::{
    Request, RequestId, State, daemon,
    toolstack::{self, NextStep, Operation, OperationOutcome},
};

impl World {
    pub(super) fn toolstack_acts(&mut self, rules: Rules) {
        let Some(plan) = self.toolstack.as_mut().and_then(|toolstack| toolstack.plan.take()) else {
            return;
        };
        if self.next_for_toolstack(rules).as_ref() != Some(&plan) && !rules.has(Mistake::ToolstackDoesNotLookAgain) {
            return;
        }
        match plan {
            NextStep::Wait => {}
            NextStep::Do(action) => self.toolstack_does(&action),
            NextStep::Finish(action, end) => {
                let wish = self.toolstack.as_ref().map(|toolstack| toolstack.wish.clone());
                if let Some(action) = action {
                    self.toolstack_does(&action);
                }
                self.toolstack = None;
                self.told(wish, &end);
            }
        }
    }

    /// Somebody is told how his wish ended: it has to be true.
    fn told(&mut self, wish: Option<Operation>, end: &OperationOutcome) {
        let id = match wish {
            Some(Operation::Attach { id, .. }) => id,
            Some(Operation::Detach { id: Some(id), .. }) => id,
            _ => return,
        };
        match end {
            OperationOutcome::Detached | OperationOutcome::Failed(_) if self.held == Some(id) => {
                self.broken = Some("told that it has gone, while it is still being released");
            }
            OperationOutcome::Detached | OperationOutcome::Failed(_) if self.has(id) => {
                self.broken = Some("told that it has gone, and something is left of it");
            }
            OperationOutcome::Exists { .. }
                if self.guest.is_some() && self.request.as_ref().is_some_and(|r| self.is_dead(r)) =>
            {
                self.broken = Some("told that there is such a device, and its guest has gone");
            }
            OperationOutcome::Attached if self.request.as_ref().is_none_or(|request| request.id != id) => {
                self.broken = Some("told that it is attached, and it is not");
            }
            _ => {}
        }
    }

    fn is_dead(&self, request: &Request) -> bool {
        self.guest.map(|guest| guest.to_string()).as_ref() != Some(&request.vm)
    }

    /// Whether anything of a request's device is left in the store.
    pub(super) fn has(&self, id: RequestId) -> bool {
        self.frontend == Some(id)
            || self
                .backend
                .as_ref()
                .is_some_and(|backend| backend.request_id == Some(id))
    }

    fn toolstack_does(&mut self, action: &toolstack::ToolstackAction) {
        let Some(toolstack) = &mut self.toolstack else { return };
        let forced = matches!(
            toolstack.wish,
            Operation::Detach { force: true, .. } | Operation::Attach { .. }
        );
        match action {
            toolstack::ToolstackAction::Create => {
                let Operation::Attach { id, written } = &mut toolstack.wish else {
                    return;
                };
                *written = true;
                self.request = Some(Request {
                    id: *id,
                    vm: self.guest.map(|guest| guest.to_string()).unwrap_or_default(),
                    state: State::Requested,
                    force: false,
                    error: String::new(),
                });
                self.frontend = Some(*id);
            }
            toolstack::ToolstackAction::RequestDetach => {
                if let Some(request) = &mut self.request {
                    (request.state, request.force) = (State::Detaching, forced);
                }
            }
            toolstack::ToolstackAction::Force => {
                if let Some(request) = &mut self.request {
                    request.force = true;
                }
            }
            toolstack::ToolstackAction::Remove => {
                let id = self.request.take().map(|request| request.id);
                if self.frontend == id {
                    self.frontend = None;
                }
            }
        }
    }

    pub(super) fn daemon_acts(&mut self, rules: Rules) {
        let Some(plan) = self.daemon.as_mut().and_then(|daemon| daemon.plan.take()) else {
            return;
        };
        let again = daemon::next(&self.seen_by_daemon(rules));
        if again.as_ref() != Some(&plan) && !rules.has(Mistake::DaemonDoesNotLookAgain) {
            return;
        }
        let fail = |request: &mut Option<Request>, why: String| {
            if let (Some(request), false) = (request, why.is_empty()) {
                request.error = why;
            }
        };
        match plan {
            daemon::DaemonAction::CreateBackend => {
                let request_id = self.request.as_ref().map(|request| request.id);
                self.backend = Some(daemon::Backend {
                    request_id,
                    state: XenbusState::Initialising,
                    online: true,
                    status: HotplugStatus::None,
                    error: String::new(),
                });
                self.tell(State::Accepted);
            }
            daemon::DaemonAction::WriteState(state) => self.tell(state),
            daemon::DaemonAction::RequestClose => {
                if let Some(backend) = &mut self.backend {
                    backend.online = false;
                    if !rules.has(Mistake::GuestNotAsked) {
                        backend.state = XenbusState::Closing;
                    }
                }
            }
            daemon::DaemonAction::RemoveBackend(why) => {
                self.backend = None;
                fail(&mut self.request, why);
            }
            daemon::DaemonAction::Close(why) => {
                if self.frontend == self.request.as_ref().map(|request| request.id) && !rules.has(Mistake::FrontendLeft)
                {
                    self.frontend = None;
                }
                fail(&mut self.request, why);
                self.tell(State::Closed);
            }
        }
    }

    fn tell(&mut self, state: State) {
        if let Some(request) = &mut self.request {
            request.state = state;
        }
    }

    pub(super) fn start_daemon(&mut self, rules: Rules) {
        let connected = self
            .backend
            .as_ref()
            .is_some_and(|backend| backend.status == HotplugStatus::Connected);
        let machine = match self.held {
            _ if rules.has(Mistake::NoJournal) => ModelPhase::Rest,
            None => ModelPhase::Rest,
            Some(_) if connected => ModelPhase::Connected,
            Some(_) => ModelPhase::Releasing { failed: false },
        };
        self.daemon = Some(Daemon {
            machine,
            ..Daemon::default()
        });
    }

    pub(super) fn machine(&mut self, machine: ModelPhase) {
        if let Some(daemon) = &mut self.daemon {
            daemon.machine = machine;
        }
    }

    /// The machine hears what its look has seen, which may be long past.
    pub(super) fn machine_looked(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let Some(seen) = daemon.look.take() else { return };
        let leaving = |backend: &daemon::Backend| backend.state == XenbusState::Closed && !backend.online;
        match (daemon.machine, seen) {
            // It looks once more before it removes.
            (ModelPhase::Rest, Some(seen)) if leaving(&seen) => {
                self.backend = self.backend.take().filter(|backend| !leaving(backend));
            }
            (ModelPhase::Rest, Some(seen)) if waits(&seen) => {
                self.held = seen.request_id;
                daemon.machine = ModelPhase::Connecting;
            }
            (ModelPhase::Connected, seen) if seen.as_ref().is_none_or(leaving) => {
                daemon.machine = ModelPhase::Releasing { failed: false };
            }
            (ModelPhase::Connecting, seen) if seen.as_ref().is_none_or(|seen| !waits(seen)) => {
                daemon.machine = ModelPhase::Releasing { failed: false };
            }
            _ => {}
        }
    }

    pub(super) fn publish(&mut self) {
        let held = self.held;
        match &mut self.backend {
            Some(backend) if waits(backend) && backend.request_id == held => {
                backend.status = HotplugStatus::Connected;
                self.machine(ModelPhase::Connected);
            }
            _ => self.machine(ModelPhase::Releasing { failed: false }),
        }
    }

    pub(super) fn release(&mut self, failed: bool) {
        let held = self.held.take();
        if let (true, Some(backend)) = (failed, &mut self.backend)
            && backend.request_id == held
        {
            backend.status = HotplugStatus::Error;
            backend.error = "busy".to_owned();
        }
        self.machine(ModelPhase::Rest);
    }
}

/// Whether a backend waits for its handler.
fn waits(backend: &daemon::Backend) -> bool {
    backend.state == XenbusState::InitWait && backend.online && backend.status == HotplugStatus::None
}
