//! What a machine is told, and what it asks for.

use super::Mode;
use crate::{HotplugStatus, Identity, XenbusState};

/// The node of a backend's directory that names the request that it was made for (`docs/hotplug-protocol.md`): the store
/// alone tells whose it is.
pub const REQUEST_NODE: &str = "hotplug-request";

/// What one look at a device found: one transaction over its directory, and what the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Whether its directory exists. Where it does not, nothing else in here counts.
    pub present: bool,
    /// Whose it is now.
    pub identity: Identity,
    /// The backend's `state`.
    pub state: XenbusState,
    /// Whether `online` is a number other than 0. A missing one is 0, as it is to the kernel
    /// (drivers/xen/xenbus/xenbus_client.c, `xenbus_dev_is_online`).
    pub online: bool,
    /// Whether the frontend's domain is known to have gone. One that cannot be asked for has not.
    pub frontend_gone: bool,
    /// Whether the link that the handler needs is there. True for kinds that need none, and of no account once the
    /// handler has begun, which may give it another name.
    pub netdev: bool,
    /// Whether a helper of ours serves all the guest's devices of this kind, as one QEMU does. It takes up a new one by
    /// itself, and says that it is `connected`, perhaps before the device was seen here for the first time.
    pub served: bool,
    /// What `hotplug-status` says.
    pub status: HotplugStatus,
    /// Whether it was made for a request, and not by the toolstack itself: it has [`REQUEST_NODE`].
    pub requested: bool,
}

impl Observation {
    /// What the nodes of a directory say, as far as they are text. The link is for others to look for.
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
            // The kernel takes a missing node for 0, but only libxl's own devices have it from the beginning: one that
            // is not on its way out counts as online without it.
            online: value("online").map_or(state != XenbusState::Closed, |text| text.trim() != "0"),
            frontend_gone,
            netdev: true,
            served: false,
            status: HotplugStatus::parse(value("hotplug-status").as_deref()),
            requested: value(REQUEST_NODE).is_some(),
        }
    }

    /// Who removes the directory, to a daemon of that mode: what was made for a request is for the daemon to remove.
    pub fn mode(&self, daemon: Mode) -> Mode {
        if self.requested { Mode::DriverDomain } else { daemon }
    }

    /// Whether the toolstack (or the end of the guest) wants the device gone, and the backend has let go of it.
    pub fn leaving(&self) -> bool {
        self.frontend_gone || (!self.online && (self.state == XenbusState::Closed || self.is_unserved()))
    }

    /// Whether nobody is there to close the backend: of a `qdisk` that is QEMU, which says `connected` as soon as it has taken
    /// the device up. One that failed, was not started, or has ended closes nothing.
    fn is_unserved(&self) -> bool {
        self.identity.key.kind.connects_itself() && self.status != HotplugStatus::Connected
    }

    /// Whether our helper has taken it up by itself, so that the handler still has to take part in that.
    pub(super) fn is_taken_up(&self) -> bool {
        self.served && self.status == HotplugStatus::Connected && self.connectable(&self.identity)
    }

    /// Whether a device whose handler runs, or has just run, may still be connected: the condition of
    /// [`FsmAction::Publish`].
    ///
    /// A kernel backend waits in its state for what the handler sets up; one that has moved on was set up by somebody
    /// else. A backend that is itself started by the handler (QEMU) may move on, and may write `connected`, by itself.
    pub fn connectable(&self, identity: &Identity) -> bool {
        use XenbusState::{Connected, InitWait, Initialised, Initialising};
        let waits = match identity.key.kind.handler_state() {
            Initialising => matches!(self.state, Initialising | InitWait | Initialised | Connected),
            at => self.state == at && self.status != HotplugStatus::Connected,
        };
        self.is_of(identity) && self.online && !self.frontend_gone && waits
    }

    /// Whether a connected device is at a state in which nobody has taken up yet what was published: the condition of
    /// [`FsmAction::Withdraw`].
    pub fn withdrawable(&self, identity: &Identity) -> bool {
        let waits = [XenbusState::Initialising, identity.key.kind.handler_state()].contains(&self.state);
        self.is_of(identity) && waits
    }

    /// Whether the directory is there and, as far as can be told, the same device's: the condition of
    /// [`FsmAction::PublishDisconnected`], and with [`Self::leaving`] that of [`FsmAction::RemoveDirectory`].
    pub fn is_of(&self, identity: &Identity) -> bool {
        self.present && self.identity.same_device(identity)
    }
}

/// Which look an answer belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// How an operation on the store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteOutcome {
    /// It is written.
    Done,
    /// Nothing was written: the directory has gone or is another device's, or what the operation rests on has changed.
    Stale,
    /// The store refused (quota, permission), or could not be reached: nothing was written.
    Failed,
    /// The store went away before it answered: it may be written or not. A look will tell.
    Unknown,
}

/// Something that a machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something may have changed.
    Changed,
    /// Somebody asks for the device to be connected, as a toolstack does by its hotplug script. In dom0 no handler runs
    /// without; in a driver domain it is like [`Event::Changed`].
    Add,
    /// Somebody asks for the device to be given back, whatever the store says. In a driver domain it is like
    /// [`Event::Changed`].
    Remove,
    /// Nobody waits for an [`Event::Add`] any more: one that no handler has begun for is void.
    AddCancelled,
    /// The look of that ticket found this.
    StateRead(Ticket, Observation),
    /// The handler returned a connection; what it acquired is held.
    HandlerDone,
    /// The handler refused, trapped, took too long or was stopped; what it acquired is held.
    HandlerFailed,
    /// `Publish`, `Withdraw`, `PublishFailure`, `PublishDisconnected` or `RemoveDirectory` has ended, whichever was in
    /// flight.
    Written(WriteOutcome),
    /// Nothing is held any more.
    Released,
    /// Something could not be given back, and is still held.
    ReleaseFailed,
    /// Something is gone without which a connected device does not work. Whoever runs the machine looks for that before
    /// each look at a connected device.
    Lost,
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsmAction {
    /// Look at the device, and answer [`Event::StateRead`] with this ticket. A look that cannot be made (the store is
    /// away) needs no answer: [`Event::Changed`], once it is back, asks for another.
    ReadState(Ticket),
    /// Run the plugin's handler; it answers [`Event::HandlerDone`] or [`Event::HandlerFailed`].
    RunHandler,
    /// End the running handler early: its device is lost. It answers as always.
    StopHandler,
    /// Publish the handler's nodes and `hotplug-status=connected`, if [`Observation::connectable`] holds in the same
    /// transaction; answer [`Event::Written`].
    Publish,
    /// Take back that it is connected and what a kernel backend would take up, if [`Observation::withdrawable`]; answer
    /// [`Event::Written`].
    Withdraw,
    /// Publish why it failed and `hotplug-status=error` (or `busy`), if [`DeviceFsm::accepts_failure`](super::DeviceFsm::accepts_failure);
    /// answer [`Event::Written`].
    PublishFailure,
    /// Give back what is held; answer [`Event::Released`] or [`Event::ReleaseFailed`]. Nothing held is no error.
    Release,
    /// Publish `hotplug-status=disconnected`, if [`Observation::is_of`]; answer [`Event::Written`].
    PublishDisconnected,
    /// Remove the device's directory, if [`Observation::is_of`] and still [`Observation::leaving`]; answer
    /// [`Event::Written`].
    RemoveDirectory,
    /// Nothing is left of the device: drop the machine. No answer. One that is kept starts over.
    Forget,
}
