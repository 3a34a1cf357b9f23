//! The life of a device as a pure function: what happened, and what to do next about it.
//!
//! One [`DeviceFsm`] stands for one device (one [`DeviceKey`](crate::DeviceKey) of one backend domain). It is told
//! [`Event`]s and answers each with at most one [`FsmAction`]. It does nothing itself: whoever runs it looks, runs the
//! handler, writes the store and undoes effects, and tells it how that ended.
//!
//! # The contract with whoever runs it
//! - [`Event::Changed`] says "look again", nothing more: a watch fired, a link appeared, it is time for a resync. Such
//!   events may be lost, repeated, delayed and reordered at will; one that arrives after the last change is enough.
//! - [`Event::Add`], [`Event::Remove`] and [`Event::AddCancelled`] are told once each, in their order. Whether an ask still
//!   stands, [`DeviceFsm::adding`] and [`DeviceFsm::removing`] tell; how it was decided, the phase does.
//! - [`FsmAction::ReadState`] carries a [`Ticket`] of this machine, and so does its answer. An answer that is out of date (another look was
//!   answered since, or an operation has begun that changes what can be seen) is ignored, so looks need no order.
//! - Of the other actions, those that take time ([`Phase::busy`]) are answered by exactly one completion, at any time.
//!   No second one is asked for before that. [`FsmAction::StopHandler`] asks the running handler to end early; the handler
//!   still completes once, either way.
//! - The store may change between a look and an operation. So every write is one transaction that looks once more, and
//!   answers [`WriteOutcome::Stale`] instead of writing to a directory that has gone or is another's. The conditions are
//!   at each action.
//!
//! # Phases
//! Operations are in flight in the phases drawn with a double line; in the others the device rests.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Absent
//!     Absent --> Waiting: present
//!     Waiting --> Connecting: wanted, in dom0 also asked for / RunHandler
//!     Connecting --> Publishing: HandlerDone / Publish
//!     Connecting --> Releasing: HandlerFailed, or stopping / Release
//!     Publishing --> Connected: Done, Unknown
//!     Publishing --> Releasing: Stale, Failed / Release
//!     Connected --> Releasing: leaving, gone, another's, made anew, Remove, Lost / Release
//!     Connected --> Withdrawing: set back / Retract
//!     Withdrawing --> Releasing: Done / Release
//!     Withdrawing --> Connected: Stale, Unknown, Failed
//!     Releasing --> ReleaseFailed: ReleaseFailed
//!     ReleaseFailed --> Releasing: Changed / Release
//!     Releasing --> Released: Released / Look
//!     Releasing --> Failing: Released after a failure / PublishFailure
//!     Failing --> Failed: Done
//!     Failed --> Waiting: made anew, another's, Add
//!     Waiting --> Foreign: connected, but not by us
//!     Released --> Disconnecting: leaving / PublishDisconnected
//!     Failed --> Disconnecting: leaving / PublishDisconnected
//!     Foreign --> Disconnecting: leaving (driver domain) / PublishDisconnected
//!     Disconnecting --> Removing: driver domain / RemoveDirectory
//!     Disconnecting --> Released: dom0, the toolstack removes
//!     Removing --> [*]: Done / Forget
//!     Released --> [*]: gone / Forget
//! ```
//!
//! # Transitions
//! *Driver domain* and *dom0* are a device's mode: what was made for a request is *driver domain* in dom0 as well.
//! *Wanted*: at the state at which the kind's handler runs, online, not *leaving*, not `connected`, and its link is
//! there; or taken up by a helper of ours that serves the guest, without the handler. *Asked*: in dom0 an `Add` stands; a
//! driver domain needs none. *Leaving*: state 6 with `online` 0, or the frontend's domain has gone; a `qdisk` that is not
//! `connected`, which nobody will close, with `online` 0. *Made anew*: state 1 where the handler runs at 2, or the handler's
//! state with a status that is not what we wrote there: somebody removed the directory and wrote it again. *Set back*: that
//! state 1, beside the `connected` that we wrote: somebody wrote the state alone. *Lost*: start-up found it so, or `Lost`
//! came, and nobody was told. *Ours*: after `Released` not told, or with our own `error` or `busy` after `Failed`, and
//! nobody else's directory. *Over*, in dom0: ours, not `disconnected`, and *leaving* or still `connected` or, with no `Add`
//! after it, a `Remove` stands.
//! *Resting* stands for `Absent`, `Waiting`, `Released` and `Foreign`, in which nothing is held and one rule serves.
//!
//! | phase | event | next phase | action |
//! | --- | --- | --- | --- |
//! | any at rest, `Connecting` | `Changed` | the same | `Look` |
//! | `ReleaseFailed` | `Changed`, any look | `Releasing` | `Release` |
//! | any other in flight | `Changed` | the same; looks when it next rests | - |
//! | any | a look that is out of date | the same | - |
//! | *resting* | absent | `Absent` | `Forget` |
//! | *resting* | *leaving*, status not `disconnected`, driver domain | `Disconnecting` | `PublishDisconnected` |
//! | *resting* | *leaving*, status `disconnected`, driver domain | `Removing` | `RemoveDirectory` |
//! | *resting* | *over*, dom0 | `Disconnecting` | `PublishDisconnected` |
//! | *resting* | *wanted* and *asked* | `Connecting` | `RunHandler` |
//! | *resting* | any other look, status `connected` | `Foreign` | - |
//! | *resting* | any other look, status `disconnected`, dom0 | `Released`, told | - |
//! | *resting* | any other look | `Waiting` | - |
//! | `Connecting` | a look that still allows it | the same | - |
//! | `Connecting` | a look that does not | stopping | `StopHandler`, once |
//! | `Connecting` | `HandlerDone` | `Publishing` | `Publish` |
//! | `Connecting`, stopping | `HandlerDone`, `HandlerFailed` | `Releasing`, then look | `Release` |
//! | `Connecting` | `HandlerFailed` | `Releasing`, then fail | `Release` |
//! | `Publishing` | `Published(Done)` | `Connected` | - |
//! | `Publishing` | `Published(Unknown)` | `Connected` | `Look`: if it was not written, it counts as *made anew* |
//! | `Publishing` | `Published(Stale)` | `Releasing`, then look | `Release` |
//! | `Publishing` | `Published(Failed)` | `Releasing`, then fail | `Release` |
//! | `Connected` | *set back* | `Withdrawing` | `Withdraw` |
//! | `Connected` | absent, *leaving*, another's, *made anew* | `Releasing`, then look | `Release` |
//! | `Connected` | `Lost` | `Releasing`, then fail | `Release` |
//! | `Connected` | any other look: also state 6 with `online` 1, a guest that reboots | the same | - |
//! | `Withdrawing` | `Published(Done)` | `Releasing`, then look | `Release` |
//! | `Withdrawing` | `Published(Stale)`, `Published(Unknown)` | `Connected` | `Look` |
//! | `Withdrawing` | `Published(Failed)` | `Connected` | - |
//! | `Releasing` | `Released` | `Released`, or `Failing` | `Look`, or `PublishFailure` |
//! | `Releasing` | `ReleaseFailed` | `ReleaseFailed` | - |
//! | `Failing` | `Published(Done)` | `Failed`, told | - |
//! | `Failing` | `Published(Failed)`, `Published(Unknown)` | `Failed`, not told | - |
//! | `Failing` | `Published(Stale)` | `Released` | `Look` |
//! | `Failed` | absent, *leaving*, another's, *made anew*, `connected` but not *lost*, an ask stands | as *resting* | |
//! | `Failed`, not told | any other look | `Failing` | `PublishFailure` |
//! | `Failed`, told | any other look | the same | - |
//! | `Disconnecting` | `Published(Done)`, `Published(Failed)`, driver domain | `Removing` | `RemoveDirectory` |
//! | `Disconnecting` | `Published(Done)`, dom0 | `Released`, told | `Look` if an `Add` stands |
//! | `Disconnecting` | `Published(Failed)`, dom0 | `Released`, not told | - |
//! | `Disconnecting` | `Published(Stale)`, `Published(Unknown)` | `Released` | `Look` |
//! | `Removing` | `Published(Done)` | `Absent` | `Forget` |
//! | `Removing` | `Published(Stale)`, `Published(Unknown)` | `Released` | `Look` |
//! | `Removing` | `Published(Failed)` | `Released` | - |
//! | any | a completion of what is not in flight | the same | - |
//! | any | `Add`, in dom0 | as for `Changed`; an `Add` stands | |
//! | `Connected`, `ReleaseFailed` | `Remove`, in dom0 | `Releasing`, then look | `Release` |
//! | `Connecting` | `Remove`, in dom0 | stopping | `StopHandler`, once |
//! | any other | `Remove`, in dom0 | as for `Changed` | |
//! | any | `Withdrawn` | the same; no `Add` stands | - |
//!
//! A phase that is reached at rest while something has changed meanwhile looks at once, where the table says "-"; so do
//! `Connected` and `Failed` while an ask stands.
//!
//! An `Add` stands until a handler begins for it, a look finds the device connected or absent, a `Remove` follows, or it
//! is withdrawn. A `Remove` stands until a look finds nothing more to do, or the end was published; an `Add` that
//! follows it comes after it.
//!
//! # Choices
//! - A device at its handler's state with `online` 0 is being taken away before it was ever connected: it waits.
//! - A status of `error` left by an earlier daemon does not count: after a restart, with perhaps another configuration,
//!   the handler gets one more try. Within one daemon a failed device stays failed until the directory is made anew;
//!   emptying `hotplug-status` counts as that, and is how an operator asks for another try.
//! - A `connected` device without a record of ours was set up by somebody else (`xl devd`, the scripts): no handler
//!   runs for it. A driver domain still owes its toolstack the removal; in dom0 whoever set it up takes it down.
//! - A device's mode is that of the last look, as the store alone says what was made for a request. It is another than
//!   the one before only if the directory was removed meanwhile, and then *made anew* or *another's* leads through rest.
//! - In dom0 other devices have other scripts, so what we were not asked for is looked at and never written to. One ask
//!   is one handler: a directory made anew under a running handler waits for its own ask, and an ask that comes while a
//!   handler runs is not answered by that one if it fails.
//! - In dom0 a `Remove` releases whatever the store says: the toolstack goes on after time-outs of its own, and may have
//!   removed the directory already. State 6 with `online` 0 releases before it, since then nobody has to wait.
//! - After every release the machine looks again rather than remember why it released: what is there now decides.

use serde::{Deserialize, Serialize};

use crate::{HotplugStatus, Identity, Kind};

mod event;
mod phase;
mod state_read;

#[cfg(test)]
mod tests;

pub use event::{Event, FsmAction, Observation, REQUEST_NODE, Ticket, WriteOutcome};
pub use phase::{AfterRelease, Phase};

/// Who removes a device's directory: a daemon's mode, but for devices that were made for a request
/// ([`Observation::mode`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// We do, once it is released: we stand in for `xl devd`.
    DriverDomain,
    /// The toolstack does: we stand in for `/etc/xen/scripts`.
    Dom0,
}

/// What start-up found of a device in the journal and the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecoveredState {
    /// Everything that its handler acquired is there, and held again. Whether it was published, the first look tells.
    Connected,
    /// Something was begun and not ended, and was not published: all is to be given back, and perhaps begun anew.
    Unfinished,
    /// It was published, and something of it is no longer there: all is to be given back, and that published.
    Lost,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFsm {
    /// The daemon's.
    daemon: Mode,
    /// The device's, as it was last seen.
    mode: Mode,
    kind: Kind,
    phase: Phase,
    /// Whose device it is: as last seen while nothing is held, and whose effects are held otherwise.
    identity: Option<Identity>,
    /// The last look that was asked for.
    asked: Ticket,
    /// The last look that was answered; it and those before it are out of date.
    heard: Ticket,
    /// Whether something may have changed that no look has shown.
    look_again: bool,
    /// Whether somebody asked for a handler that has not begun. Never in a driver domain.
    adding: bool,
    /// Whether somebody asked for the end, and it is not there yet. Of the two asks this one comes first.
    removing: bool,
    /// Whether the store says `connected` of what was lost, and it was us who wrote that.
    lost: bool,
}

/// The machine after an event, and what to do: a function of its arguments alone.
pub fn step(machine: &DeviceFsm, event: &Event) -> (DeviceFsm, Option<FsmAction>) {
    let mut next = machine.clone();
    let action = next.apply(event);
    (next, action)
}

impl DeviceFsm {
    /// A device of which nothing is known. Its first [`Event::Changed`] makes it look.
    pub fn new(mode: Mode, kind: Kind) -> Self {
        Self {
            daemon: mode,
            mode,
            kind,
            phase: Phase::Absent,
            identity: None,
            asked: Ticket::default(),
            heard: Ticket::default(),
            look_again: false,
            adding: false,
            removing: false,
            lost: false,
        }
    }

    /// A device of an earlier daemon's, which the journal tells of. Its first [`Event::Changed`] makes it look, or
    /// release what is unfinished.
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

    /// Where the device is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Who removes its directory.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whose device it is: the identity that the conditions of [`FsmAction::Publish`] and the like are about.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether an [`Event::Add`] stands: no handler has begun for it, and nothing has made it void.
    pub fn add_pending(&self) -> bool {
        self.adding
    }

    /// Whether an [`Event::Remove`] stands: there may be more to do for it.
    pub fn remove_pending(&self) -> bool {
        self.removing
    }

    /// Whether what is seen is the device that failed, as far as can be told: the condition of
    /// [`FsmAction::PublishFailure`]. Of one that was lost the directory still says what was written there; one that was
    /// made anew says nothing yet.
    pub fn accepts_failure(&self, seen: &Observation) -> bool {
        self.is_own(seen) && !(self.lost && seen.status == HotplugStatus::None)
    }

    /// Whether the phase is only what the last operation lets expect, and a look at the device is under way.
    pub fn read_pending(&self) -> bool {
        self.heard != self.asked
    }

    /// Takes an event, as [`step`] does, in place.
    pub fn apply(&mut self, event: &Event) -> Option<FsmAction> {
        use AfterRelease::{PublishFailure, ReadState};
        use WriteOutcome::{Done, Stale, Unknown};
        match (event, self.phase) {
            (Event::Changed, phase) => self.changed(phase),
            // Nobody is asked in a driver domain.
            (Event::Add | Event::Remove, phase) if self.mode == Mode::DriverDomain => self.changed(phase),
            (Event::Add, phase) => {
                self.adding = true;
                self.asked_anew(phase)
            }
            (Event::Remove, phase) => {
                (self.adding, self.removing) = (false, true);
                match phase {
                    Phase::Connected | Phase::ReleaseFailed { .. } => self.release(ReadState),
                    Phase::Connecting { stopping: false } => self.stop_handler(),
                    phase => self.asked_anew(phase),
                }
            }
            (Event::AddCancelled, _) => {
                self.adding = false;
                None
            }
            (Event::StateRead(ticket, seen), phase) => {
                if *ticket <= self.heard || *ticket > self.asked {
                    return None;
                }
                self.heard = *ticket;
                if seen.present {
                    self.mode = seen.mode(self.daemon);
                }
                self.looked(phase, seen)
            }

            (Event::HandlerDone, Phase::Connecting { stopping: false }) => {
                self.begin(Phase::Publishing, FsmAction::Publish)
            }
            (Event::HandlerFailed, Phase::Connecting { stopping: false }) => self.release(PublishFailure),
            (Event::HandlerDone | Event::HandlerFailed, Phase::Connecting { stopping: true }) => {
                self.release(ReadState)
            }

            (Event::Released, Phase::Releasing { then: ReadState }) => {
                self.look_from(Phase::Released { published: false })
            }
            (Event::Released, Phase::Releasing { then: PublishFailure }) => {
                self.begin(Phase::Failing, FsmAction::PublishFailure)
            }
            (Event::ReleaseFailed, Phase::Releasing { then }) => self.rest(Phase::ReleaseFailed { then }),

            (Event::Written(Done), Phase::Publishing) => self.rest(Phase::Connected),
            // If it was not written, the look finds the device as it was before, and that is what "made anew" is.
            (Event::Written(Unknown), Phase::Publishing) => self.look_from(Phase::Connected),
            (Event::Written(Stale), Phase::Publishing) => self.release(ReadState),
            (Event::Written(WriteOutcome::Failed), Phase::Publishing) => self.release(PublishFailure),

            (Event::Written(Done), Phase::Withdrawing) => self.release(ReadState),
            (Event::Written(Stale | Unknown), Phase::Withdrawing) => self.look_from(Phase::Connected),
            (Event::Written(WriteOutcome::Failed), Phase::Withdrawing) => self.rest(Phase::Connected),

            (Event::Written(Stale), Phase::Failing | Phase::Disconnecting | Phase::Removing)
            | (Event::Written(Unknown), Phase::Disconnecting | Phase::Removing) => {
                self.look_from(Phase::Released { published: false })
            }
            (Event::Written(outcome), Phase::Failing) => {
                let published = *outcome == Done;
                self.lost &= !published;
                self.rest(Phase::Failed { published })
            }
            // A status that cannot be written is no reason to leave a directory that is ours to remove.
            (Event::Written(_), Phase::Disconnecting) if self.mode == Mode::DriverDomain => {
                self.begin(Phase::Removing, FsmAction::RemoveDirectory)
            }
            (Event::Written(outcome), Phase::Disconnecting) => {
                let published = *outcome == Done;
                self.removing = false;
                self.look_again |= published && self.adding;
                self.rest(Phase::Released { published })
            }
            (Event::Written(Done), Phase::Removing) if self.look_again => self.look_from(Phase::Absent),
            (Event::Written(Done), Phase::Removing) => self.forget(),
            (Event::Written(WriteOutcome::Failed), Phase::Removing) => self.rest(Phase::Released { published: false }),

            (Event::Lost, Phase::Connected) => {
                self.lost = true;
                self.release(PublishFailure)
            }
            // It is about what the phase before held.
            (Event::Lost, _) => None,

            // A completion of what is not in flight.
            (Event::HandlerDone | Event::HandlerFailed, _) => None,
            (Event::Released | Event::ReleaseFailed, _) => None,
            (Event::Written(_), _) => None,
        }
    }

    fn changed(&mut self, phase: Phase) -> Option<FsmAction> {
        match phase {
            Phase::ReleaseFailed { then } => self.release(then),
            // The one operation that a look can cut short.
            Phase::Connecting { .. } => self.look_from(phase),
            phase if phase.busy() => {
                self.look_again = true;
                None
            }
            phase => self.look_from(phase),
        }
    }

    /// An ask is decided by looks from here on.
    fn asked_anew(&mut self, phase: Phase) -> Option<FsmAction> {
        self.heard = self.asked;
        self.changed(phase)
    }

    fn stop_handler(&mut self) -> Option<FsmAction> {
        self.phase = Phase::Connecting { stopping: true };
        Some(FsmAction::StopHandler)
    }

    fn release(&mut self, then: AfterRelease) -> Option<FsmAction> {
        self.begin(Phase::Releasing { then }, FsmAction::Release)
    }

    /// Begins an operation that changes what can be seen: looks that are under way no longer count.
    fn begin(&mut self, phase: Phase, action: FsmAction) -> Option<FsmAction> {
        self.look_again |= self.heard != self.asked;
        self.heard = self.asked;
        self.phase = phase;
        Some(action)
    }

    /// Comes to rest, unless something may have changed meanwhile.
    fn rest(&mut self, phase: Phase) -> Option<FsmAction> {
        self.phase = phase;
        let asked = (self.adding || self.removing) && matches!(phase, Phase::Connected | Phase::Failed { .. });
        if self.look_again || asked {
            self.look_from(phase)
        } else {
            None
        }
    }

    fn look_from(&mut self, phase: Phase) -> Option<FsmAction> {
        self.phase = phase;
        self.look_again = false;
        self.asked.0 += 1;
        Some(FsmAction::ReadState(self.asked))
    }

    fn forget(&mut self) -> Option<FsmAction> {
        self.phase = Phase::Absent;
        self.identity = None;
        self.look_again = false;
        (self.adding, self.removing, self.lost) = (false, false, false);
        self.heard = self.asked;
        Some(FsmAction::Forget)
    }
}
