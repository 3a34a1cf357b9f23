//! Effects of the steps: the toolstack's and the daemon's transactions, and the device's machine.

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
        let Some(planned) = self.toolstack.as_mut().and_then(|toolstack| toolstack.planned.take()) else {
            return;
        };
        if self.next_for_toolstack(rules).as_ref() != Some(&planned) && !rules.has(Mistake::ToolstackSkipsRecheck) {
            return;
        }
        match planned {
            NextStep::Wait => {}
            NextStep::Do(action) => self.toolstack_writes(&action),
            NextStep::Finish(action, end) => {
                let operation = self.toolstack.as_ref().map(|toolstack| toolstack.operation.clone());
                if let Some(action) = action {
                    self.toolstack_writes(&action);
                }
                self.toolstack = None;
                self.check_outcome(operation, &end);
            }
        }
    }

    /// Checks that the outcome reported for an operation is true.
    fn check_outcome(&mut self, operation: Option<Operation>, end: &OperationOutcome) {
        let id = match operation {
            Some(Operation::Attach { id, .. }) => id,
            Some(Operation::Detach { id: Some(id), .. }) => id,
            _ => return,
        };
        match end {
            OperationOutcome::Detached | OperationOutcome::Failed(_) if self.held == Some(id) => {
                self.broken = Some("gone reported while resources are held");
            }
            OperationOutcome::Detached | OperationOutcome::Failed(_) if self.has(id) => {
                self.broken = Some("gone reported while nodes are left");
            }
            OperationOutcome::Exists { .. }
                if self.guest.is_some() && self.request.as_ref().is_some_and(|r| self.is_dead(r)) =>
            {
                self.broken = Some("exists reported of a guest that is gone");
            }
            OperationOutcome::Attached if self.request.as_ref().is_none_or(|request| request.id != id) => {
                self.broken = Some("attached reported without the request");
            }
            _ => {}
        }
    }

    fn is_dead(&self, request: &Request) -> bool {
        self.guest.map(|guest| guest.to_string()).as_ref() != Some(&request.vm)
    }

    /// Tells whether the store has nodes of a request's device.
    pub(super) fn has(&self, id: RequestId) -> bool {
        self.frontend == Some(id)
            || self
                .backend
                .as_ref()
                .is_some_and(|backend| backend.request_id == Some(id))
    }

    fn toolstack_writes(&mut self, action: &toolstack::ToolstackAction) {
        let Some(toolstack) = &mut self.toolstack else { return };
        let forced = matches!(
            toolstack.operation,
            Operation::Detach { force: true, .. } | Operation::Attach { .. }
        );
        match action {
            toolstack::ToolstackAction::Create => {
                let Operation::Attach { id, written } = &mut toolstack.operation else {
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
        let Some(planned) = self.daemon.as_mut().and_then(|daemon| daemon.planned.take()) else {
            return;
        };
        let now = daemon::next(&self.daemon_snapshot(rules));
        if now.as_ref() != Some(&planned) && !rules.has(Mistake::DaemonSkipsRecheck) {
            return;
        }
        let fail = |request: &mut Option<Request>, why: String| {
            if let (Some(request), false) = (request, why.is_empty()) {
                request.error = why;
            }
        };
        match planned {
            daemon::DaemonAction::CreateBackend => {
                let request_id = self.request.as_ref().map(|request| request.id);
                self.backend = Some(daemon::Backend {
                    request_id,
                    state: XenbusState::Initialising,
                    online: true,
                    status: HotplugStatus::None,
                    error: String::new(),
                });
                self.write_state(State::Accepted);
            }
            daemon::DaemonAction::WriteState(state) => self.write_state(state),
            daemon::DaemonAction::RequestClose => {
                if let Some(backend) = &mut self.backend {
                    backend.online = false;
                    if !rules.has(Mistake::CloseNotRequested) {
                        backend.state = XenbusState::Closing;
                    }
                }
            }
            daemon::DaemonAction::RemoveBackend(why) => {
                self.backend = None;
                fail(&mut self.request, why);
            }
            daemon::DaemonAction::Close(why) => {
                if self.frontend == self.request.as_ref().map(|request| request.id) && !rules.has(Mistake::FrontendKept)
                {
                    self.frontend = None;
                }
                fail(&mut self.request, why);
                self.write_state(State::Closed);
            }
        }
    }

    fn write_state(&mut self, state: State) {
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

    /// Delivers the machine's read, which may be outdated.
    pub(super) fn machine_read(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let Some(snapshot) = daemon.read.take() else { return };
        let leaving = |backend: &daemon::Backend| backend.state == XenbusState::Closed && !backend.online;
        match (daemon.machine, snapshot) {
            // The removal checks the state again.
            (ModelPhase::Rest, Some(snapshot)) if leaving(&snapshot) => {
                self.backend = self.backend.take().filter(|backend| !leaving(backend));
            }
            (ModelPhase::Rest, Some(snapshot)) if waits(&snapshot) => {
                self.held = snapshot.request_id;
                daemon.machine = ModelPhase::Connecting;
            }
            (ModelPhase::Connected, snapshot) if snapshot.as_ref().is_none_or(leaving) => {
                daemon.machine = ModelPhase::Releasing { failed: false };
            }
            (ModelPhase::Connecting, snapshot) if snapshot.as_ref().is_none_or(|snapshot| !waits(snapshot)) => {
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

/// Tells whether a backend waits for its handler.
fn waits(backend: &daemon::Backend) -> bool {
    backend.state == XenbusState::InitWait && backend.online && backend.status == HotplugStatus::None
}
