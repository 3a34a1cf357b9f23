//! What a look at a device means to its machine.

use super::{AfterRelease, DeviceFsm, FsmAction, Mode, Observation, Phase};
use crate::{HotplugStatus, Identity, XenbusState};

impl DeviceFsm {
    pub(super) fn looked(&mut self, phase: Phase, seen: &Observation) -> Option<FsmAction> {
        match phase {
            Phase::Connecting { stopping: false }
                if !self.identity.as_ref().is_some_and(|own| seen.connectable(own)) =>
            {
                self.stop_handler()
            }
            Phase::Connecting { .. } => None,
            // Nobody is to read what is no longer held.
            Phase::Connected if self.is_set_back(seen) => self.begin(Phase::Withdrawing, FsmAction::Withdraw),
            Phase::Connected if self.removing || !self.is_own(seen) || seen.leaving() || self.made_anew(seen) => {
                self.release(AfterRelease::ReadState)
            }
            Phase::Connected => {
                self.adding = false;
                // The virtual machine may become known later than the device, and must be the same from then on.
                self.identity = self.identity.take().map(|own| Identity {
                    vm: own.vm.or(seen.identity.vm.clone()),
                    ..own
                });
                None
            }
            Phase::ReleaseFailed { then } => self.release(then),
            Phase::Failed { published } => {
                let over = self.adding
                    || self.removing
                    || !self.is_own(seen)
                    || seen.leaving()
                    || (seen.status == HotplugStatus::Connected && !self.lost)
                    || self.made_anew_after_failure(seen, published);
                match (over, published) {
                    (true, _) => self.looked_at_rest(seen),
                    (false, false) => self.begin(Phase::Failing, FsmAction::PublishFailure),
                    (false, true) => None,
                }
            }
            Phase::Absent | Phase::Waiting | Phase::Released { .. } | Phase::Foreign => self.looked_at_rest(seen),
            // No look is asked for in these, and those asked for before are out of date.
            Phase::Publishing | Phase::Withdrawing | Phase::Releasing { .. } => None,
            Phase::Failing | Phase::Disconnecting | Phase::Removing => None,
        }
    }

    /// Nothing is held: what is there decides.
    fn looked_at_rest(&mut self, seen: &Observation) -> Option<FsmAction> {
        if !seen.present {
            return self.forget();
        }
        let over = self.is_over(seen);
        self.identity = Some(seen.identity.clone());
        self.lost = false;
        match (self.mode, seen.status) {
            (Mode::DriverDomain, HotplugStatus::Disconnected) if seen.leaving() => {
                return self.begin(Phase::Removing, FsmAction::RemoveDirectory);
            }
            (Mode::DriverDomain, _) if seen.leaving() => {
                return self.begin(Phase::Disconnecting, FsmAction::PublishDisconnected);
            }
            (Mode::Dom0, _) if over => return self.begin(Phase::Disconnecting, FsmAction::PublishDisconnected),
            _ => {}
        }
        self.removing = false;
        let taken_up = seen.is_taken_up();
        let connected = seen.status == HotplugStatus::Connected && !taken_up;
        let waits = (seen.state == self.kind.handler_state() || taken_up) && seen.online && !seen.leaving();
        if waits && seen.netdev && !connected && (self.adding || self.mode == Mode::DriverDomain) {
            self.adding = false;
            self.phase = Phase::Connecting { stopping: false };
            return Some(FsmAction::RunHandler);
        }
        self.adding &= !connected;
        self.rest(match (self.mode, seen.status) {
            (_, HotplugStatus::Connected) => Phase::Foreign,
            (Mode::Dom0, HotplugStatus::Disconnected) => Phase::Released { published: true },
            _ => Phase::Waiting,
        })
    }

    /// Whether the store does not say yet that a device is no more that was ours, where the toolstack removes it.
    fn is_over(&self, seen: &Observation) -> bool {
        use HotplugStatus::{Busy, Connected, Disconnected, Error};
        let ours = self.is_own(seen)
            && match self.phase {
                Phase::Released { published } => !published,
                Phase::Failed { .. } => matches!(seen.status, Error | Busy),
                _ => false,
            };
        let due = seen.leaving() || seen.status == Connected || (self.removing && !self.adding);
        ours && due && seen.status != Disconnected
    }

    pub(super) fn is_own(&self, seen: &Observation) -> bool {
        self.identity.as_ref().is_some_and(|own| seen.is_of(own))
    }

    /// Whether a connected device's directory is no longer the one that `connected` was written to. A backend in use
    /// passes through its handler's state again when its guest reboots, but nobody takes `connected` away.
    fn made_anew(&self, seen: &Observation) -> bool {
        let at = self.kind.handler_state();
        self.set_back(seen) || (seen.state == at && seen.status != HotplugStatus::Connected)
    }

    /// The same for a failed device, whose status is ours only if it was told.
    fn made_anew_after_failure(&self, seen: &Observation, told: bool) -> bool {
        let ours = matches!(seen.status, HotplugStatus::Error | HotplugStatus::Busy);
        self.set_back(seen) || (told && seen.state == self.kind.handler_state() && !ours)
    }

    /// Whether somebody wrote a connected device's state anew, and nothing else of its directory.
    fn is_set_back(&self, seen: &Observation) -> bool {
        let ours = seen.status == HotplugStatus::Connected && self.is_own(seen) && !seen.leaving();
        ours && !self.removing && self.set_back(seen)
    }

    /// Whether the state is the one that only the toolstack writes, when it creates a device.
    fn set_back(&self, seen: &Observation) -> bool {
        seen.state == XenbusState::Initialising && self.kind.handler_state() != XenbusState::Initialising
    }
}
