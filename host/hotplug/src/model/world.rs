//! What there is, and what can happen to it.

use xenplug_xenbus::{HotplugStatus, XenbusState};

use super::{Mistake, Rules};
use crate::{
    Request, RequestId, State, daemon,
    toolstack::{self, NextStep, Operation, OperationOutcome},
};

/// Requests that are made in one run.
const ATTEMPTS: u8 = 2;

/// Everything, at one moment. One device's place; one domain id for all guests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) request: Option<Request>,
    /// The frontend's directory, and the request that it was made for.
    pub(super) frontend: Option<RequestId>,
    pub(super) backend: Option<daemon::Backend>,
    /// The guest that runs, of all that have this domain id one after the other.
    pub(super) guest: Option<u8>,
    /// Guests that there were.
    pub(super) guests: u8,
    /// Whether the driver domain is there.
    pub(super) domain: bool,
    pub(super) daemon: Option<Daemon>,
    /// What the machine really has been given for a device, and the journal knows of.
    pub(super) held: Option<RequestId>,
    pub(super) toolstack: Option<Toolstack>,
    pub(super) attempts: u8,
    /// What went wrong where only the step itself shows it.
    pub(super) broken: Option<&'static str>,
}

/// A running daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Daemon {
    /// What it is about to do for the request.
    pub(super) plan: Option<daemon::DaemonAction>,
    /// The device's machine, as far as it matters here.
    pub(super) machine: ModelPhase,
    /// A look of the machine under way, and what it has seen.
    pub(super) look: Option<Option<daemon::Backend>>,
}

/// The device's machine (`xenplug_xenbus::ModelPhase` of a driver domain) in fewer phases.
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

/// Somebody who runs `attach` or `detach`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Toolstack {
    pub(super) wish: Operation,
    pub(super) plan: Option<NextStep>,
}

/// A step: its name, whether it needs no luck (it will be taken some time if it stays possible), and where it leads.
pub(super) type Step = (&'static str, bool, World);

/// What takes the steps that are possible: a name, whether it needs no luck, and what it changes.
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

    /// Whether nothing is left of anything, and nobody waits.
    pub(super) fn is_clean(&self) -> bool {
        self.request.is_none()
            && self.frontend.is_none()
            && self.backend.is_none()
            && self.held.is_none()
            && self.toolstack.is_none()
    }

    /// The same, but for the directory that a frontend keeps whose request was removed by hand: it goes with the guest.
    pub(super) fn is_as_good_as_clean(&self) -> bool {
        let without = Self {
            frontend: None,
            ..self.clone()
        };
        without.is_clean()
    }

    /// Everything that can happen next.
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

    /// The kernel's backend and the guest's frontend, which move together.
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
            Initialising => to("the kernel takes the backend", true, InitWait),
            InitWait if alive && backend.online && backend.status == HotplugStatus::Connected => {
                to("the guest connects", true, Connected);
            }
            Connected if alive => to("the guest reboots", false, InitWait),
            Closing if !alive || !rules.stubborn => to("the guest lets go", true, Closed),
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
        if daemon.plan.is_none() {
            step("the daemon looks", true, &|world| {
                let plan = daemon::next(&world.seen_by_daemon(rules));
                if let Some(daemon) = &mut world.daemon {
                    daemon.plan = plan;
                }
            });
        } else {
            step("the daemon acts", true, &|world| world.daemon_acts(rules));
        }
        if daemon.look.is_none() {
            step("the machine looks", true, &|world| {
                let seen = world.backend.clone();
                if let Some(daemon) = &mut world.daemon {
                    daemon.look = Some(seen);
                }
            });
        } else {
            step("the machine has looked", true, &World::machine_looked);
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
                // Somebody will, for a request that is not to stay.
                step("detach", self.request.is_some(), &|world| {
                    let id = world.request.as_ref().map(|request| request.id);
                    world.begin(Operation::Detach { id, force: *force });
                });
            }
            return;
        };
        step("the toolstack dies", false, &|world| world.toolstack = None);
        match &toolstack.wish {
            Operation::Attach { id, written: true } => step("the toolstack gives up", true, &|world| {
                world.begin(Operation::Detach {
                    id: Some(*id),
                    force: false,
                });
            }),
            Operation::Detach { id, force: false } if !rules.patient => {
                step("the toolstack loses patience", true, &|world| {
                    world.begin(Operation::Detach { id: *id, force: true });
                })
            }
            _ => {}
        }
        if toolstack.plan.is_none() {
            step("the toolstack looks", true, &|world| {
                let plan = world.next_for_toolstack(rules);
                if let Some(toolstack) = &mut world.toolstack {
                    toolstack.plan = plan.filter(|plan| *plan != NextStep::Wait);
                }
            });
        } else {
            step("the toolstack acts", true, &|world| world.toolstack_acts(rules));
        }
    }

    fn begin(&mut self, wish: Operation) {
        self.toolstack = Some(Toolstack { wish, plan: None });
    }

    /// What the toolstack is about to do.
    pub(super) fn next_for_toolstack(&self, rules: Rules) -> Option<NextStep> {
        let toolstack = self.toolstack.as_ref()?;
        let mut seen = toolstack::ToolstackSnapshot {
            request: self.request.clone(),
            vm: self.guest.map(|guest| guest.to_string()),
            frontend: self.frontend.is_some(),
            driver_domain: self.domain,
        };
        if let (true, Some(request)) = (rules.has(Mistake::MachineIgnored), &mut seen.request) {
            request.vm = seen.vm.clone().unwrap_or_default();
        }
        let state = self.request.as_ref().map(|request| request.state);
        let detaches = matches!(toolstack.wish, Operation::Detach { .. });
        let hasty = (rules.has(Mistake::ToolstackDoesNotWait) && state == Some(State::Detaching))
            || (rules.has(Mistake::WithdrawnWhenTaken) && state == Some(State::Accepted));
        if hasty && detaches {
            return Some(NextStep::Finish(
                Some(toolstack::ToolstackAction::Remove),
                OperationOutcome::Detached,
            ));
        }
        Some(toolstack::next(&toolstack.wish, &seen))
    }

    /// What the daemon sees of the request's device.
    pub(super) fn seen_by_daemon(&self, rules: Rules) -> daemon::DaemonSnapshot {
        let (machine, look) = self.daemon.as_ref().map_or((ModelPhase::Rest, false), |daemon| {
            (daemon.machine, daemon.look.is_some())
        });
        let id = self.request.as_ref().map(|request| request.id);
        let releasing = machine != ModelPhase::Rest && !rules.has(Mistake::ClosedBeforeReleased);
        let mut seen = daemon::DaemonSnapshot {
            request: self.request.clone(),
            refusal: String::new(),
            backend: self.backend.clone(),
            frontend: self.frontend.is_some() && self.frontend == id,
            held: releasing || (look && !rules.has(Mistake::LookUnderWayIgnored)),
        };
        if let (true, Some(request)) = (rules.has(Mistake::ForceIgnored), &mut seen.request) {
            request.force = false;
        }
        seen
    }
}
