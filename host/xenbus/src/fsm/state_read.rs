//! Transitions on [`Event::StateRead`](super::Event::StateRead).

use super::{AfterRelease, DeviceFsm, FsmAction, Mode, Observation, Phase};
use crate::{HotplugStatus, Identity, XenbusState};

impl DeviceFsm {
    pub(super) fn state_read(&mut self, phase: Phase, read: &Observation) -> Option<FsmAction> {
        match phase {
            Phase::Connecting { stopping: false }
                if !self.identity.as_ref().is_some_and(|own| read.connectable(own)) =>
            {
                self.stop_handler()
            }
            Phase::Connecting { .. } => None,
            // No backend may pick up published nodes of a resource that is no longer held.
            Phase::Connected if self.is_reset(read) => self.begin(Phase::Withdrawing, FsmAction::Withdraw),
            Phase::Connected if self.remove_pending || !self.is_own(read) || read.leaving() || self.recreated(read) => {
                self.release(AfterRelease::ReadState)
            }
            Phase::Connected => {
                self.add_pending = false;
                // The guest's vm path may become readable later than the device, and must stay the same from then on.
                self.identity = self.identity.take().map(|own| Identity {
                    vm: own.vm.or(read.identity.vm.clone()),
                    ..own
                });
                None
            }
            Phase::ReleaseFailed { then } => self.release(then),
            Phase::Failed { published } => match (self.stays_failed(read, published), published) {
                (false, _) => self.state_read_at_rest(read),
                (true, false) => self.begin(Phase::Failing, FsmAction::PublishFailure),
                (true, true) => None,
            },
            Phase::Absent | Phase::Waiting | Phase::Released { .. } | Phase::Foreign => self.state_read_at_rest(read),
            // These phases request no read, and their beginning outdates those requested before.
            Phase::Publishing | Phase::Withdrawing | Phase::Releasing { .. } => None,
            Phase::Failing | Phase::Disconnecting | Phase::Removing => None,
        }
    }

    /// Decides by the read alone, as nothing is held.
    fn state_read_at_rest(&mut self, read: &Observation) -> Option<FsmAction> {
        if !read.present {
            return self.forget();
        }
        let disconnect = self.owes_disconnected(read);
        self.identity = Some(read.identity.clone());
        self.lost = false;
        match (self.mode, read.status) {
            (Mode::DriverDomain, HotplugStatus::Disconnected) if read.leaving() => {
                return self.begin(Phase::Removing, FsmAction::RemoveDirectory);
            }
            (Mode::DriverDomain, _) if read.leaving() => {
                return self.begin(Phase::Disconnecting, FsmAction::PublishDisconnected);
            }
            (Mode::Dom0, _) if disconnect => {
                return self.begin(Phase::Disconnecting, FsmAction::PublishDisconnected);
            }
            _ => {}
        }
        self.remove_pending = false;
        if read.ready() && (self.add_pending || self.mode == Mode::DriverDomain) {
            self.add_pending = false;
            self.phase = Phase::Connecting { stopping: false };
            return Some(FsmAction::RunHandler);
        }
        self.add_pending &= !read.is_foreign();
        self.rest(match (self.mode, read.status) {
            (_, HotplugStatus::Connected) => Phase::Foreign,
            (Mode::Dom0, HotplugStatus::Disconnected) => Phase::Released { published: true },
            _ => Phase::Waiting,
        })
    }

    /// Tells whether the daemon has to publish `disconnected`, for a device of its own that the toolstack removes.
    pub(super) fn owes_disconnected(&self, read: &Observation) -> bool {
        use HotplugStatus::{Busy, Connected, Disconnected, Error};
        let ours = self.is_own(read)
            && match self.phase {
                Phase::Released { published } => !published,
                Phase::Failed { .. } => matches!(read.status, Error | Busy),
                _ => false,
            };
        let due = read.leaving() || read.status == Connected || (self.remove_pending && !self.add_pending);
        ours && due && read.status != Disconnected
    }

    pub(super) fn is_own(&self, read: &Observation) -> bool {
        self.identity.as_ref().is_some_and(|own| read.is_of(own))
    }

    /// Tells whether a connected device's directory is no longer the one that `connected` was published in. A backend
    /// in use passes through its handler's state again when its guest reboots, but nobody removes `connected`.
    pub(super) fn recreated(&self, read: &Observation) -> bool {
        let at = self.kind.handler_state();
        self.state_reset(read) || (read.state == at && read.status != HotplugStatus::Connected)
    }

    /// Tells whether a failed device is still there as it failed, and no script call asks for it. The status is the
    /// daemon's only if the failure was published.
    pub(super) fn stays_failed(&self, read: &Observation, published: bool) -> bool {
        let called = self.add_pending || self.remove_pending;
        let connected = read.status == HotplugStatus::Connected && !self.lost;
        let ours = matches!(read.status, HotplugStatus::Error | HotplugStatus::Busy);
        let recreated = self.state_reset(read) || (published && read.state == self.kind.handler_state() && !ours);
        !called && self.is_own(read) && !read.leaving() && !connected && !recreated
    }

    /// Tells whether somebody reset the state of a connected device and left the rest of its directory.
    pub(super) fn is_reset(&self, read: &Observation) -> bool {
        let ours = read.status == HotplugStatus::Connected && self.is_own(read) && !read.leaving();
        ours && !self.remove_pending && self.state_reset(read)
    }

    /// Tells whether the state is the one that only the toolstack writes, when it creates a device.
    fn state_reset(&self, read: &Observation) -> bool {
        read.state == XenbusState::Initialising && self.kind.handler_state() != XenbusState::Initialising
    }
}
