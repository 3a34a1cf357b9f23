//! State of the modelled world and its steps.

use xenplug_xenbus::{HotplugStatus, XenbusState};

use super::{Mistake, Rules};
use crate::{
    Request, RequestId, State, daemon,
    toolstack::{self, NextStep, Operation, OperationOutcome},
};

/// Attach operations of one run.
const ATTEMPTS: u8 = 2;

/// State of the world: one device key, and one domain id for all guests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) request: Option<Request>,
    /// Request that the frontend's directory was made for, if it exists.
    pub(super) frontend: Option<RequestId>,
    pub(super) backend: Option<daemon::Backend>,
    /// The running guest, of those that have this domain id one after the other.
    pub(super) guest: Option<u8>,
    /// Number of guests so far.
    pub(super) guests: u8,
    /// The driver domain exists.
    pub(super) domain: bool,
    pub(super) daemon: Option<Daemon>,
    /// Request that resources are held for, as the journal records.
    pub(super) held: Option<RequestId>,
    pub(super) toolstack: Option<Toolstack>,
    pub(super) attempts: u8,
    /// Violation that only a step shows.
    pub(super) broken: Option<&'static str>,
}

/// Running daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Daemon {
    /// Action that it is about to carry out.
    pub(super) planned: Option<daemon::DaemonAction>,
    /// Phase of the device's machine.
    pub(super) machine: ModelPhase,
    /// Unanswered read of the machine, with its result.
    pub(super) read: Option<Option<daemon::Backend>>,
}

/// Phase of the device's machine (`xenplug_xenbus::DeviceFsm` in a driver domain), simplified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum ModelPhase {
    #[default]
    Rest,
    Connecting,
    Connected,
    Releasing {
        failed: bool,
    },
}

/// Toolstack that runs `attach` or `detach`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Toolstack {
    pub(super) operation: Operation,
    pub(super) planned: Option<NextStep>,
}

/// Step: its name, whether it is certain (taken at some time if it stays possible), and the state that follows.
pub(super) type Step = (&'static str, bool, World);

/// Receiver of possible steps: a name, whether it is certain, and the change.
type Take<'a> = &'a mut dyn FnMut(&'static str, bool, &dyn Fn(&mut World));

impl World {
    pub(super) fn new() -> Self {
        Self {
            request: None,
            frontend: None,
            backend: None,
            guest: Some(0),
            guests: 1,
            domain: true,
            daemon: Some(Daemon::default()),
            held: None,
            toolstack: None,
            attempts: 0,
            broken: None,
        }
    }

    /// Tells whether nothing is left and nobody waits.
    pub(super) fn is_clean(&self) -> bool {
        self.request.is_none()
            && self.frontend.is_none()
            && self.backend.is_none()
            && self.held.is_none()
            && self.toolstack.is_none()
    }

    /// Does the same except for the frontend of a request that was removed by hand: it is removed with the guest.
    pub(super) fn is_as_good_as_clean(&self) -> bool {
        let without = Self {
            frontend: None,
            ..self.clone()
        };
        without.is_clean()
    }

    /// Returns all possible steps.
    pub(super) fn steps(&self, rules: Rules) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.broken.is_some() {
            return steps;
        }
        let mut step = |name, sure, change: &dyn Fn(&mut World)| {
            let mut after = self.clone();
            change(&mut after);
            if after != *self {
                steps.push((name, sure, after));
            }
        };
        self.guest_steps(rules, &mut step);
        self.kernel_steps(rules, &mut step);
        self.daemon_steps(rules, &mut step);
        self.toolstack_steps(rules, &mut step);
        steps
    }

    fn guest_steps(&self, rules: Rules, step: Take<'_>) {
        if self.guest.is_some() && !rules.stubborn {
            step("the guest dies", false, &|world| {
                world.guest = None;
                world.frontend = None;
            });
        }
        if self.guest.is_none() && self.guests < 2 {
            step("another guest gets its domain id", false, &|world| {
                world.guest = Some(world.guests);
                world.guests += 1;
            });
        }
    }

    /// Steps of the kernel's backend and the guest's frontend together.
    fn kernel_steps(&self, rules: Rules, step: Take<'_>) {
        use XenbusState::{Closed, Closing, Connected, InitWait, Initialising};
        let Some(backend) = &self.backend else { return };
        let alive = self.guest.is_some() && self.frontend.is_some();
        let mut to = |name, sure, state| {
            step(name, sure, &|world| {
                if let Some(backend) = &mut world.backend {
                    backend.state = state;
                }
            });
        };
        match backend.state {
            Initialising => to("the kernel binds the backend", true, InitWait),
            InitWait if alive && backend.online && backend.status == HotplugStatus::Connected => {
                to("the guest connects", true, Connected);
            }
            Connected if alive => to("the guest reboots", false, InitWait),
            Closing if !alive || !rules.stubborn => to("the guest closes the device", true, Closed),
            _ => {}
        }
    }

    fn daemon_steps(&self, rules: Rules, step: Take<'_>) {
        if !self.domain {
            return;
        }
        if rules.mortal {
            step("the driver domain dies", false, &|world| {
                world.domain = false;
                world.daemon = None;
                world.held = None;
                world.backend = None;
            });
        }
        let Some(daemon) = &self.daemon else {
            step("a daemon starts", true, &|world| world.start_daemon(rules));
            return;
        };
        step("the daemon dies", false, &|world| world.daemon = None);
        if daemon.planned.is_none() {
            step("the daemon takes a snapshot", true, &|world| {
                let planned = daemon::next(&world.daemon_snapshot(rules));
                if let Some(daemon) = &mut world.daemon {
                    daemon.planned = planned;
                }
            });
        } else {
            step("the daemon acts", true, &|world| world.daemon_acts(rules));
        }
        if daemon.read.is_none() {
            step("the machine reads the state", true, &|world| {
                let snapshot = world.backend.clone();
                if let Some(daemon) = &mut world.daemon {
                    daemon.read = Some(snapshot);
                }
            });
        } else {
            step("the read is answered", true, &World::machine_read);
        }
        match daemon.machine {
            ModelPhase::Connecting => {
                step("the handler is done", true, &World::publish);
                step("the handler fails", false, &|world| {
                    world.machine(ModelPhase::Releasing { failed: true });
                });
            }
            ModelPhase::Releasing { failed } => step("the machine has released", true, &|world| world.release(failed)),
            ModelPhase::Rest | ModelPhase::Connected => {}
        }
    }

    fn toolstack_steps(&self, rules: Rules, step: Take<'_>) {
        if rules.careless && self.request.is_some() {
            step("somebody removes the request", false, &|world| {
                world.request = None;
                world.toolstack = None;
                world.attempts = ATTEMPTS;
            });
        }
        let Some(toolstack) = &self.toolstack else {
            if self.attempts < ATTEMPTS {
                step("attach", false, &|world| {
                    world.attempts += 1;
                    let id = RequestId(u128::from(world.attempts));
                    world.begin(Operation::Attach { id, written: false });
                });
            }
            for force in if rules.patient { &[false][..] } else { &[false, true] } {
                // A request that exists is detached at some time.
                step("detach", self.request.is_some(), &|world| {
                    let id = world.request.as_ref().map(|request| request.id);
                    world.begin(Operation::Detach { id, force: *force });
                });
            }
            return;
        };
        step("the toolstack dies", false, &|world| world.toolstack = None);
        match &toolstack.operation {
            Operation::Attach { id, written: true } => step("the toolstack gives up", true, &|world| {
                world.begin(Operation::Detach {
                    id: Some(*id),
                    force: false,
                });
            }),
            Operation::Detach { id, force: false } if !rules.patient => {
                step("the toolstack forces the detach", true, &|world| {
                    world.begin(Operation::Detach { id: *id, force: true });
                })
            }
            _ => {}
        }
        if toolstack.planned.is_none() {
            step("the toolstack takes a snapshot", true, &|world| {
                let planned = world.next_for_toolstack(rules);
                if let Some(toolstack) = &mut world.toolstack {
                    toolstack.planned = planned.filter(|planned| *planned != NextStep::Wait);
                }
            });
        } else {
            step("the toolstack acts", true, &|world| world.toolstack_acts(rules));
        }
    }

    fn begin(&mut self, operation: Operation) {
        self.toolstack = Some(Toolstack {
            operation,
            planned: None,
        });
    }

    /// Returns the toolstack's next step.
    pub(super) fn next_for_toolstack(&self, rules: Rules) -> Option<NextStep> {
        let toolstack = self.toolstack.as_ref()?;
        let mut snapshot = toolstack::ToolstackSnapshot {
            request: self.request.clone(),
            vm: self.guest.map(|guest| guest.to_string()),
            frontend: self.frontend.is_some(),
            driver_domain: self.domain,
        };
        if let (true, Some(request)) = (rules.has(Mistake::VmIgnored), &mut snapshot.request) {
            request.vm = snapshot.vm.clone().unwrap_or_default();
        }
        let state = self.request.as_ref().map(|request| request.state);
        let detaches = matches!(toolstack.operation, Operation::Detach { .. });
        let hasty = (rules.has(Mistake::ToolstackDoesNotWait) && state == Some(State::Detaching))
            || (rules.has(Mistake::AcceptedRequestRemoved) && state == Some(State::Accepted));
        if hasty && detaches {
            return Some(NextStep::Finish(
                Some(toolstack::ToolstackAction::Remove),
                OperationOutcome::Detached,
            ));
        }
        Some(toolstack::next(&toolstack.operation, &snapshot))
    }

    /// Returns the daemon's snapshot.
    pub(super) fn daemon_snapshot(&self, rules: Rules) -> daemon::DaemonSnapshot {
        let (machine, look) = self.daemon.as_ref().map_or((ModelPhase::Rest, false), |daemon| {
            (daemon.machine, daemon.read.is_some())
        });
        let id = self.request.as_ref().map(|request| request.id);
        let releasing = machine != ModelPhase::Rest && !rules.has(Mistake::ClosedBeforeReleased);
        let mut snapshot = daemon::DaemonSnapshot {
            request: self.request.clone(),
            refusal: String::new(),
            backend: self.backend.clone(),
            frontend: self.frontend.is_some() && self.frontend == id,
            held: releasing || (look && !rules.has(Mistake::PendingReadIgnored)),
        };
        if let (true, Some(request)) = (rules.has(Mistake::ForceIgnored), &mut snapshot.request) {
            request.force = false;
        }
        snapshot
    }
}
