//! Events, observations and actions of the state machine.

use super::mode::Mode;
use crate::{HotplugStatus, Identity, XenbusState};

/// Node of a backend's directory with the id of the request that it was made for (`docs/hotplug-protocol.md`). The
/// store alone tells which request a backend belongs to.
pub const REQUEST_NODE: &str = "hotplug-request";

/// Result of one read of a device: one transaction over its directory, and the kernel's view of its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The directory exists. Otherwise no other field counts.
    pub present: bool,
    /// The device that the directory belongs to now.
    pub identity: Identity,
    /// The backend's `state`.
    pub state: XenbusState,
    /// `online` is a number other than 0. The kernel takes a missing node for 0
    /// (drivers/xen/xenbus/xenbus_client.c, `xenbus_dev_is_online`).
    pub online: bool,
    /// The frontend's domain is known to be gone. A domain that cannot be queried is not.
    pub frontend_gone: bool,
    /// The link that the handler needs exists. True for kinds that need none, and ignored once the handler has begun,
    /// since the handler may rename it.
    pub netdev: bool,
    /// A helper process of the daemon serves all the guest's devices of this kind, as one QEMU does. It connects a new
    /// device by itself and writes `connected`, perhaps before the daemon has read the device for the first time.
    pub served: bool,
    /// The value of `hotplug-status`.
    pub status: HotplugStatus,
    /// The directory has [`REQUEST_NODE`]: the daemon made it for a request.
    pub requested: bool,
}

impl Observation {
    /// Interprets the nodes of a directory. `netdev` and `served` are the caller's to fill in.
    pub fn read(
        identity: Identity,
        present: bool,
        frontend_gone: bool,
        value: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let state = value("state").map_or(XenbusState::Unknown, |text| XenbusState::parse(&text));
        Self {
            present,
            identity,
            state,
            // The kernel takes a missing node for 0, but only libxl's own devices have it from the beginning: a device
            // that is not closed counts as online without it.
            online: value("online").map_or(state != XenbusState::Closed, |text| text.trim() != "0"),
            frontend_gone,
            netdev: true,
            served: false,
            status: HotplugStatus::parse(value("hotplug-status").as_deref()),
            requested: value(REQUEST_NODE).is_some(),
        }
    }

    /// Returns the device's mode under a daemon of the given one: the daemon removes what it made for a request.
    pub fn mode(&self, daemon: Mode) -> Mode {
        if self.requested { Mode::DriverDomain } else { daemon }
    }

    /// Tells whether the toolstack wants the device gone and the backend has closed it, or the guest is gone.
    pub fn leaving(&self) -> bool {
        self.frontend_gone || (!self.online && (self.state == XenbusState::Closed || self.is_unserved()))
    }

    /// Tells whether no backend process will ever close the device. QEMU serves a `qdisk` and writes `connected` as
    /// soon as it does; one that failed, was not started, or has ended closes nothing.
    fn is_unserved(&self) -> bool {
        self.identity.key.kind.connects_itself() && self.status != HotplugStatus::Connected
    }

    /// Tells whether our helper process has connected the device by itself and the handler still has to join in.
    fn is_self_connected(&self) -> bool {
        self.served && self.status == HotplugStatus::Connected && self.connectable(&self.identity)
    }

    /// Tells whether somebody else has connected the device.
    pub(super) fn is_foreign(&self) -> bool {
        self.status == HotplugStatus::Connected && !self.is_self_connected()
    }

    /// Tells whether the device waits for its handler and has the link that the handler needs.
    pub(super) fn ready(&self) -> bool {
        let waits = self.state == self.identity.key.kind.handler_state() || self.is_self_connected();
        waits && self.online && !self.leaving() && self.netdev && !self.is_foreign()
    }

    /// Checks that a device whose handler runs, or has just run, may still be connected. This is the condition of
    /// [`FsmAction::Publish`].
    ///
    /// A kernel backend waits in its state for what the handler sets up; one that has moved on was set up by somebody
    /// else. A backend process that the handler starts (QEMU) may move on, and may write `connected`, by itself.
    pub fn connectable(&self, identity: &Identity) -> bool {
        use XenbusState::{Connected, InitWait, Initialised, Initialising};
        let waits = match identity.key.kind.handler_state() {
            Initialising => matches!(self.state, Initialising | InitWait | Initialised | Connected),
            at => self.state == at && self.status != HotplugStatus::Connected,
        };
        self.is_of(identity) && self.online && !self.frontend_gone && waits
    }

    /// Checks that a connected device is in a state in which no backend has used the published nodes yet. This is the
    /// condition of [`FsmAction::Withdraw`].
    pub fn withdrawable(&self, identity: &Identity) -> bool {
        let waits = [XenbusState::Initialising, identity.key.kind.handler_state()].contains(&self.state);
        self.is_of(identity) && waits
    }

    /// Checks that the directory exists and belongs to the same device, as far as both identities tell. This is the
    /// condition of [`FsmAction::PublishDisconnected`] and, with [`Self::leaving`], of [`FsmAction::RemoveDirectory`].
    pub fn is_of(&self, identity: &Identity) -> bool {
        self.present && self.identity.same_device(identity)
    }
}

/// Number that matches an answered read with its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// Result of a transaction that writes to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteOutcome {
    /// The nodes are written.
    Done,
    /// Nothing is written: the directory is gone or another device's, or the write's condition no longer holds.
    Stale,
    /// Nothing is written: the store refused (quota, permission) or could not be reached.
    Failed,
    /// The store went away before it answered; the next read shows whether the nodes are written.
    Unknown,
}

/// Input of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something may have changed.
    Changed,
    /// A script call asks for the device to be connected. In dom0 no handler runs without it; in a driver domain it is
    /// the same as [`Event::Changed`].
    Add,
    /// A script call asks for the device to be released, whatever the store says. In a driver domain it is the same as
    /// [`Event::Changed`].
    Remove,
    /// No caller waits for an [`Event::Add`] any more. It is void if no handler has begun for it.
    AddCancelled,
    /// The read with this ticket found this state.
    StateRead(Ticket, Observation),
    /// The handler returned a connection; its resources are held.
    HandlerDone,
    /// The handler refused, trapped, timed out or was stopped; what it acquired is still held.
    HandlerFailed,
    /// The write in flight has ended: `Publish`, `Withdraw`, `PublishFailure`, `PublishDisconnected` or
    /// `RemoveDirectory`.
    Written(WriteOutcome),
    /// Nothing is held any more.
    Released,
    /// A resource could not be released and is still held.
    ReleaseFailed,
    /// A resource is gone without which a connected device does not work. The driver checks this before each read of a
    /// connected device.
    Lost,
}

/// Output of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsmAction {
    /// Read the device and answer [`Event::StateRead`] with this ticket. A read that fails because the store is away
    /// needs no answer: [`Event::Changed`], once the store is back, requests another.
    ReadState(Ticket),
    /// Run the plugin's handler and answer [`Event::HandlerDone`] or [`Event::HandlerFailed`].
    RunHandler,
    /// Stop the running handler, whose device may no longer be connected. It completes as always.
    StopHandler,
    /// Publish the handler's nodes and `hotplug-status=connected` if [`Observation::connectable`] holds in the same
    /// transaction, and answer [`Event::Written`].
    Publish,
    /// Withdraw `connected` and the nodes that a kernel backend would use if [`Observation::withdrawable`], and answer
    /// [`Event::Written`].
    Withdraw,
    /// Publish `hotplug-error` and `hotplug-status=error` (or `busy`) if
    /// [`DeviceFsm::accepts_failure`](super::DeviceFsm::accepts_failure), and answer [`Event::Written`].
    PublishFailure,
    /// Release the held resources and answer [`Event::Released`] or [`Event::ReleaseFailed`]. Having none is no error.
    Release,
    /// Publish `hotplug-status=disconnected` if [`Observation::is_of`], and answer [`Event::Written`].
    PublishDisconnected,
    /// Remove the device's directory if [`Observation::is_of`] and still [`Observation::leaving`], and answer
    /// [`Event::Written`].
    RemoveDirectory,
    /// Drop the machine, as nothing is left of the device. There is no answer; a machine that is not dropped starts
    /// over.
    Forget,
}
