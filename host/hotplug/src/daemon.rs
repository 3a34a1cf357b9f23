//! The driver domain's side: the next action for a request.
//!
//! The daemon runs the device's state machine (`xenplug_xenbus::DeviceFsm`) beside this. The machine runs the handler once
//! the backend exists, releases when the backend is closed or gone, and removes the directory of a closed one.
//!
//! | request | backend | next |
//! | --- | --- | --- |
//! | none | made for a request that does not exist | [`DaemonAction::RemoveBackend`] |
//! | any | made for another request | [`DaemonAction::RemoveBackend`] |
//! | any but closed, refused | none, or libxl's | [`DaemonAction::Close`] |
//! | requested | libxl's | [`DaemonAction::Close`] |
//! | requested | none, nothing held | [`DaemonAction::CreateBackend`], or [`DaemonAction::Close`] if its frontend is gone |
//! | accepted, ready, in use | none, nothing held | [`DaemonAction::Close`] |
//! | accepted, ready, in use | the guest is gone, or the set-up failed | [`DaemonAction::RemoveBackend`] |
//! | accepted, ready, in use | ours | [`DaemonAction::WriteState`] with the backend's progress, if it changed |
//! | detaching | ours, never set up; or forced; or the guest is gone | [`DaemonAction::RemoveBackend`] |
//! | detaching | ours, online | [`DaemonAction::RequestClose`] |
//! | detaching | none, or libxl's, nothing held | [`DaemonAction::Close`] |
//! | any other | any other | nothing |

use xenplug_xenbus::{HotplugStatus, XenbusState};

use crate::{Request, RequestId, State};

/// State of the store, and of the daemon, that the daemon decides by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DaemonSnapshot {
    /// The device's request.
    pub request: Option<Request>,
    /// Reason why the request cannot be served at all, such as its version or an invalid node. Empty if it can.
    pub refusal: String,
    /// The backend's directory.
    pub backend: Option<Backend>,
    /// The frontend's directory exists and this domain may write in it. A domain that may not cannot tell whether it exists
    /// (tools/xenstored/core.c, `errno_from_parents`), and does not have to: the frontend is not ours then.
    pub frontend: bool,
    /// Resources are held for a device with this key, or may be soon: its machine is not settled, the journal has a record
    /// of it, or a read is under way.
    pub held: bool,
}

/// Nodes of a backend's directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Request that the backend was made for; none for libxl's.
    pub request_id: Option<RequestId>,
    /// Value of `state`.
    pub state: XenbusState,
    /// Value of `online`.
    pub online: bool,
    /// Value of `hotplug-status`.
    pub status: HotplugStatus,
    /// Value of `hotplug-error`.
    pub error: String,
}

/// Action of the daemon, done in one transaction that takes the snapshot again and changes nothing if the next action is
/// another by then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DaemonAction {
    /// Create the backend's directory, fill the frontend's, and write [`State::Accepted`].
    CreateBackend,
    /// Write this state.
    WriteState(State),
    /// Ask the guest to close the device: the backend's `online` 0 and `state` 5.
    RequestClose,
    /// Remove the backend's directory, which unregisters it in the kernel, and write the error unless it is empty.
    RemoveBackend(String),
    /// Remove the frontend's directory, and write the error unless it is empty, and [`State::Closed`].
    Close(String),
}

/// Returns the next action, or `None` if there is none until something changes.
pub fn next(snapshot: &DaemonSnapshot) -> Option<DaemonAction> {
    let Some(request) = &snapshot.request else {
        let orphan = snapshot
            .backend
            .as_ref()
            .is_some_and(|backend| backend.request_id.is_some());
        return orphan.then(|| DaemonAction::RemoveBackend(String::new()));
    };
    match &snapshot.backend {
        Some(backend) if backend.request_id == Some(request.id) => with_backend(snapshot, request, backend),
        Some(backend) if backend.request_id.is_some() => Some(DaemonAction::RemoveBackend(String::new())),
        other => without_backend(snapshot, request, other.is_some()),
    }
}

/// Decides for a request whose backend exists.
fn with_backend(snapshot: &DaemonSnapshot, request: &Request, backend: &Backend) -> Option<DaemonAction> {
    let drop = |why: &str| Some(DaemonAction::RemoveBackend(why.to_owned()));
    let connected = backend.status == HotplugStatus::Connected;
    match request.state {
        State::Requested | State::Accepted | State::Ready | State::InUse => {
            if !snapshot.refusal.is_empty() {
                return drop(&snapshot.refusal);
            }
            if !snapshot.frontend {
                return drop(GUEST_GONE);
            }
            if matches!(backend.status, HotplugStatus::Error | HotplugStatus::Busy) {
                return drop(if backend.error.is_empty() {
                    "the device could not be set up"
                } else {
                    &backend.error
                });
            }
            let is = match (connected, backend.state) {
                (true, XenbusState::Connected) => State::InUse,
                (true, _) => State::Ready,
                (false, _) => State::Accepted,
            };
            (request.state != is).then_some(DaemonAction::WriteState(is))
        }
        // Before the set-up is done no guest uses the device, and a guest without a driver never answers.
        State::Detaching if request.force || !snapshot.frontend || (!connected && backend.online) => drop(""),
        State::Detaching if backend.online => Some(DaemonAction::RequestClose),
        // The guest has to close the device first, and then the machine to release it.
        State::Detaching => None,
        State::Closed => drop(""),
        State::Unknown => None,
    }
}

/// Decides for a request without a backend of its own; libxl may have one.
fn without_backend(snapshot: &DaemonSnapshot, request: &Request, foreign: bool) -> Option<DaemonAction> {
    let close = |why: &str| {
        let why = if request.error.is_empty() { why } else { "" };
        Some(DaemonAction::Close(why.to_owned()))
    };
    if snapshot.held && !foreign {
        return None;
    }
    match request.state {
        State::Requested if !snapshot.refusal.is_empty() => close(&snapshot.refusal),
        State::Requested if foreign => close("there is such a device, made by another toolstack"),
        State::Requested if !snapshot.frontend => close(GUEST_GONE),
        State::Requested => Some(DaemonAction::CreateBackend),
        State::Accepted | State::Ready | State::InUse if !snapshot.frontend => close(GUEST_GONE),
        State::Accepted | State::Ready | State::InUse => close("the backend's directory was removed"),
        State::Detaching => close(""),
        State::Closed | State::Unknown => None,
    }
}

const GUEST_GONE: &str = "the guest has gone, or does not let this domain write its frontend";
