//! The hotplug state machine of one device: a pure function from events to actions.
//!
//! One [`DeviceFsm`] stands for one device (one [`DeviceKey`](crate::DeviceKey) of one backend domain). It takes
//! [`Event`]s and answers each with at most one [`FsmAction`]. It does nothing itself: its driver reads the store, runs
//! the handler, writes nodes and releases resources, and reports each result as the next event.
//!
//! All transitions are listed and drawn in `docs/state-machine.md`, which a test generates from this code.
//!
//! # Contract with the driver
//! - [`Event::Changed`] only means "read again": a watch fired, a link appeared, a periodic resync is due. The driver
//!   may lose, repeat, delay and reorder such events; one that arrives after the last change is enough.
//! - [`Event::Add`], [`Event::Remove`] and [`Event::AddCancelled`] are delivered once each and in order. A call is
//!   pending while [`DeviceFsm::add_pending`] or [`DeviceFsm::remove_pending`] says so; the phase shows how it was
//!   decided.
//! - [`FsmAction::ReadState`] carries a [`Ticket`], and so does its answer. The machine ignores an outdated answer (a
//!   later read was answered, or an operation has begun since that changes what can be read), so reads need no order.
//! - Every other action that takes time ([`Phase::busy`]) is answered by exactly one completion, at any time, and no
//!   second one is requested before that. [`FsmAction::StopHandler`] asks the running handler to end early; the handler
//!   still completes exactly once.
//! - The store may change between a read and an operation. Each write is therefore one transaction that reads the state
//!   again and answers [`WriteOutcome::Stale`] instead of writing to a directory that is gone or another device's. Each
//!   action names its condition.
//!
//! # Terms
//! - *Leaving*: the toolstack wants the device gone, or the guest is gone ([`Observation::leaving`]).
//! - *Recreated*: the directory was removed and written again, as far as its state and status show it.
//! - *Reset*: only the state of a connected device was written back to 1; its status is still the daemon's.
//! - *Lost*: the device was published as connected and something that it needs is gone.
//! - *Foreign*: connected by somebody else (`xl devd`, the original scripts).
//!
//! # Decisions
//! - A device in its handler's state with `online` 0 is being removed before it was ever connected: it waits.
//! - A status of `error` left by an earlier daemon does not count. After a restart, perhaps with another configuration,
//!   the handler gets one more try. Within one daemon a failed device stays failed until its directory is recreated;
//!   emptying `hotplug-status` counts as that and is how an operator asks for a retry.
//! - No handler runs for a foreign device. In a driver domain the daemon still removes its directory; in dom0 the
//!   program that connected the device does.
//! - The mode of a device is that of its last read, since only the store says what was made for a request. It differs
//!   from the mode before only if the directory was removed meanwhile, and then the device comes to rest first.
//! - In dom0 other devices have other scripts, so the machine reads a device without a script call and never writes to
//!   it. One call starts one handler: a directory recreated under a running handler waits for its own call, and a call
//!   that arrives while a handler runs is not answered by that handler's failure.
//! - In dom0 a `Remove` releases whatever the store says, since libxl goes on after its own timeouts and may have
//!   removed the directory already. State 6 with `online` 0 releases earlier, so that the script does not have to wait.
//! - An `Add` is pending until a handler begins for it, a read finds the device connected or absent, a `Remove`
//!   follows, or it is cancelled. A `Remove` is pending until a read finds nothing more to do or the end is published;
//!   an `Add` that follows it comes after it.
//! - After every release the machine reads again instead of remembering why it released: the present state decides.

use crate::{HotplugStatus, Identity, Kind};

mod event;
mod mode;
mod phase;
mod state_read;

#[cfg(test)]
mod tests;

pub use event::{Event, FsmAction, Observation, REQUEST_NODE, Ticket, WriteOutcome};
pub use mode::Mode;
pub use phase::{AfterRelease, Phase};

/// State of a device that start-up found in the journal and the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecoveredState {
    /// Every resource of the handler exists and is adopted. The first read shows whether it was published.
    Connected,
    /// The set-up or the release did not finish and nothing is published: release, and perhaps start over.
    Unfinished,
    /// The device is published and a resource of it is gone: release, and publish the failure.
    Lost,
}

/// State machine of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct DeviceFsm {
    daemon: Mode,
    /// The device's mode as of the last read.
    mode: Mode,
    kind: Kind,
    phase: Phase,
    /// The device that was last read while nothing is held, else the device that the resources are held for.
    identity: Option<Identity>,
    last_requested: Ticket,
    /// The last answered read; it and those before it are outdated.
    last_answered: Ticket,
    /// Something may have changed that no requested read covers.
    read_owed: bool,
    /// An `Add` whose handler has not begun; never set in a driver domain.
    add_pending: bool,
    /// A `Remove` that is not done; with both set, the `Add` came after it.
    remove_pending: bool,
    /// The store still has `connected` for a device that was lost, and this machine published that.
    lost: bool,
}

impl DeviceFsm {
    /// Makes the machine of an unknown device. Its first [`Event::Changed`] requests a read.
    pub fn new(mode: Mode, kind: Kind) -> Self {
        Self {
            daemon: mode,
            mode,
            kind,
            phase: Phase::Absent,
            identity: None,
            last_requested: Ticket::default(),
            last_answered: Ticket::default(),
            read_owed: false,
            add_pending: false,
            remove_pending: false,
            lost: false,
        }
    }

    /// Makes the machine of a device from an earlier daemon's journal. Its first [`Event::Changed`] requests a read, or
    /// releases what is unfinished.
    pub fn adopted(mode: Mode, identity: Identity, found: RecoveredState) -> Self {
        let phase = match found {
            RecoveredState::Connected => Phase::Connected,
            RecoveredState::Unfinished => Phase::ReleaseFailed {
                then: AfterRelease::ReadState,
            },
            RecoveredState::Lost => Phase::ReleaseFailed {
                then: AfterRelease::PublishFailure,
            },
        };
        Self {
            phase,
            identity: Some(identity.clone()),
            lost: found == RecoveredState::Lost,
            ..Self::new(mode, identity.key.kind)
        }
    }

    /// Returns the current phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the device's mode as of the last read.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the device that the conditions of [`FsmAction::Publish`] and the other writes are checked against.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Tells whether an [`Event::Add`] is undecided: no handler has begun for it and nothing has made it void.
    pub fn add_pending(&self) -> bool {
        self.add_pending
    }

    /// Tells whether an [`Event::Remove`] is not done yet.
    pub fn remove_pending(&self) -> bool {
        self.remove_pending
    }

    /// Checks that a read shows the device that failed, which is the condition of [`FsmAction::PublishFailure`]. The
    /// directory of a lost device still has the status written there; a recreated one has none yet.
    pub fn accepts_failure(&self, read: &Observation) -> bool {
        self.is_own(read) && !(self.lost && read.status == HotplugStatus::None)
    }

    /// Tells whether a requested read is unanswered, so that the phase is only the expectation of the last operation.
    pub fn read_pending(&self) -> bool {
        self.last_answered != self.last_requested
    }

    /// Applies an event and returns the action that it requires. The result depends on the machine and the event alone.
    pub fn apply(&mut self, event: &Event) -> Option<FsmAction> {
        use AfterRelease::{PublishFailure, ReadState};
        use WriteOutcome::{Done, Failed, Stale, Unknown};
        match (event, self.phase) {
            (Event::Changed, phase) => self.changed(phase),
            // A driver domain has no script calls.
            (Event::Add | Event::Remove, phase) if self.mode == Mode::DriverDomain => self.changed(phase),
            (Event::Add, phase) => {
                self.add_pending = true;
                self.called(phase)
            }
            (Event::Remove, phase) => {
                (self.add_pending, self.remove_pending) = (false, true);
                match phase {
                    Phase::Connected | Phase::ReleaseFailed { .. } => self.release(ReadState),
                    Phase::Connecting { stopping: false } => self.stop_handler(),
                    phase => self.called(phase),
                }
            }
            (Event::AddCancelled, _) => {
                self.add_pending = false;
                None
            }
            (Event::StateRead(ticket, read), phase) => {
                if *ticket <= self.last_answered || *ticket > self.last_requested {
                    return None;
                }
                self.last_answered = *ticket;
                if read.present {
                    self.mode = read.mode(self.daemon);
                }
                self.state_read(phase, read)
            }

            (Event::HandlerDone, Phase::Connecting { stopping: false }) => {
                self.begin(Phase::Publishing, FsmAction::Publish)
            }
            (Event::HandlerFailed, Phase::Connecting { stopping: false }) => self.release(PublishFailure),
            (Event::HandlerDone | Event::HandlerFailed, Phase::Connecting { stopping: true }) => {
                self.release(ReadState)
            }

            (Event::Released, Phase::Releasing { then: ReadState }) => {
                self.read_from(Phase::Released { published: false })
            }
            (Event::Released, Phase::Releasing { then: PublishFailure }) => {
                self.begin(Phase::Failing, FsmAction::PublishFailure)
            }
            (Event::ReleaseFailed, Phase::Releasing { then }) => self.rest(Phase::ReleaseFailed { then }),

            (Event::Written(Done), Phase::Publishing) => self.rest(Phase::Connected),
            // If nothing was written, the read finds the device as before, which counts as recreated.
            (Event::Written(Unknown), Phase::Publishing) => self.read_from(Phase::Connected),
            (Event::Written(Stale), Phase::Publishing) => self.release(ReadState),
            (Event::Written(Failed), Phase::Publishing) => self.release(PublishFailure),

            (Event::Written(Done), Phase::Withdrawing) => self.release(ReadState),
            (Event::Written(Stale | Unknown), Phase::Withdrawing) => self.read_from(Phase::Connected),
            (Event::Written(Failed), Phase::Withdrawing) => self.rest(Phase::Connected),

            (Event::Written(Stale), Phase::Failing | Phase::Disconnecting | Phase::Removing)
            | (Event::Written(Unknown), Phase::Disconnecting | Phase::Removing) => {
                self.read_from(Phase::Released { published: false })
            }
            (Event::Written(outcome), Phase::Failing) => {
                let published = *outcome == Done;
                self.lost &= !published;
                self.rest(Phase::Failed { published })
            }
            // A status that cannot be written does not keep a directory that the daemon has to remove.
            (Event::Written(_), Phase::Disconnecting) if self.mode == Mode::DriverDomain => {
                self.begin(Phase::Removing, FsmAction::RemoveDirectory)
            }
            (Event::Written(outcome), Phase::Disconnecting) => {
                let published = *outcome == Done;
                self.remove_pending = false;
                self.read_owed |= published && self.add_pending;
                self.rest(Phase::Released { published })
            }
            (Event::Written(Done), Phase::Removing) if self.read_owed => self.read_from(Phase::Absent),
            (Event::Written(Done), Phase::Removing) => self.forget(),
            (Event::Written(Failed), Phase::Removing) => self.rest(Phase::Released { published: false }),

            (Event::Lost, Phase::Connected) => {
                self.lost = true;
                self.release(PublishFailure)
            }
            // The lost resource belonged to an earlier phase.
            (Event::Lost, _) => None,

            // Completions of an operation that is not in flight.
            (Event::HandlerDone | Event::HandlerFailed, _) => None,
            (Event::Released | Event::ReleaseFailed, _) => None,
            (Event::Written(_), _) => None,
        }
    }

    fn changed(&mut self, phase: Phase) -> Option<FsmAction> {
        match phase {
            Phase::ReleaseFailed { then } => self.release(then),
            // The handler is the one operation that a read can cut short.
            Phase::Connecting { .. } => self.read_from(phase),
            phase if phase.busy() => {
                self.read_owed = true;
                None
            }
            phase => self.read_from(phase),
        }
    }

    /// Takes a script call, which only reads requested from now on may decide.
    fn called(&mut self, phase: Phase) -> Option<FsmAction> {
        self.last_answered = self.last_requested;
        self.changed(phase)
    }

    fn stop_handler(&mut self) -> Option<FsmAction> {
        self.phase = Phase::Connecting { stopping: true };
        Some(FsmAction::StopHandler)
    }

    fn release(&mut self, then: AfterRelease) -> Option<FsmAction> {
        self.begin(Phase::Releasing { then }, FsmAction::Release)
    }

    /// Begins an operation that changes what can be read, which outdates the reads under way.
    fn begin(&mut self, phase: Phase, action: FsmAction) -> Option<FsmAction> {
        self.read_owed |= self.last_answered != self.last_requested;
        self.last_answered = self.last_requested;
        self.phase = phase;
        Some(action)
    }

    /// Comes to rest, or requests the read that is owed.
    fn rest(&mut self, phase: Phase) -> Option<FsmAction> {
        self.phase = phase;
        let called =
            (self.add_pending || self.remove_pending) && matches!(phase, Phase::Connected | Phase::Failed { .. });
        if self.read_owed || called {
            self.read_from(phase)
        } else {
            None
        }
    }

    fn read_from(&mut self, phase: Phase) -> Option<FsmAction> {
        self.phase = phase;
        self.read_owed = false;
        self.last_requested.0 += 1;
        Some(FsmAction::ReadState(self.last_requested))
    }

    fn forget(&mut self) -> Option<FsmAction> {
        self.phase = Phase::Absent;
        self.identity = None;
        self.read_owed = false;
        (self.add_pending, self.remove_pending, self.lost) = (false, false, false);
        self.last_answered = self.last_requested;
        Some(FsmAction::Forget)
    }
}
