//! The driver domain's side: what is next for a request, given what is there.
//!
//! The daemon runs its device's machine (`xenplug_xenbus::Machine`) beside this: that one runs the handler once a backend
//! is there, releases when the backend is down or has gone, and removes the directory of one that is down.
//!
//! | request | backend | next |
//! | --- | --- | --- |
//! | none | made for a request that is not there | [`DaemonAction::RemoveBackend`] |
//! | any | made for another request | [`DaemonAction::RemoveBackend`] |
//! | any but closed, refused | none, or libxl's | [`DaemonAction::Close`] |
//! | wanted | libxl's | [`DaemonAction::Close`] |
//! | wanted | none, nothing held | [`DaemonAction::CreateBackend`], or [`DaemonAction::Close`] if its frontend has gone |
//! | taken, ready, used | none, nothing held | [`DaemonAction::Close`] |
//! | taken, ready, used | the guest has gone, or its setting up failed | [`DaemonAction::RemoveBackend`] |
//! | taken, ready, used | ours | [`DaemonAction::WriteState`] what the backend says, if the request does not |
//! | unwanted | ours, never set up; or forced; or the guest has gone | [`DaemonAction::RemoveBackend`] |
//! | unwanted | ours, online | [`DaemonAction::RequestClose`] |
//! | unwanted | none, or libxl's, nothing held | [`DaemonAction::Close`] |
//! | any other | any other | nothing |

use xenplug_xenbus::{HotplugStatus, XenbusState};

use crate::{Request, RequestId, State};

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DaemonSnapshot {
    /// The request.
    pub request: Option<Request>,
    /// Why the request cannot be served, whatever is there: its version, or what is wrong with its nodes. Empty if it can.
    pub refusal: String,
    /// The backend's directory.
    pub backend: Option<Backend>,
    /// Whether the frontend's directory is there and this domain may write in it. A domain that may not cannot tell
    /// whether it is there (tools/xenstored/core.c, `errno_from_parents`), and need not: it is not ours then.
    pub frontend: bool,
    /// Whether anything is held for a device at this place, or may be without the device's machine doing something else
    /// first: it is not settled, the journal has a record of it, or a look of it is under way.
    pub held: bool,
}

/// A backend's directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The request that it was made for; none for libxl's.
    pub request_id: Option<RequestId>,
    /// Its `state`.
    pub state: XenbusState,
    /// Its `online`.
    pub online: bool,
    /// Its `hotplug-status`.
    pub status: HotplugStatus,
    /// Its `hotplug-error`.
    pub error: String,
}

/// What to do, in one transaction that looks again and changes nothing if something else is next by then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DaemonAction {
    /// Make the backend's directory and fill the frontend's, and write [`State::Accepted`].
    CreateBackend,
    /// Write that state.
    WriteState(State),
    /// Ask the guest to let go: the backend's `online` 0 and `state` 5.
    RequestClose,
    /// Remove the backend's directory, which unregisters it in the kernel, and write why, if that is not empty.
    RemoveBackend(String),
    /// Remove the frontend's directory, and write why, if that is not empty, and [`State::Closed`].
    Close(String),
}

/// What is next. `None`: nothing, until something changes.
pub fn next(seen: &DaemonSnapshot) -> Option<DaemonAction> {
    let Some(request) = &seen.request else {
        let orphan = seen
            .backend
            .as_ref()
            .is_some_and(|backend| backend.request_id.is_some());
        return orphan.then(|| DaemonAction::RemoveBackend(String::new()));
    };
    match &seen.backend {
        Some(backend) if backend.request_id == Some(request.id) => with_backend(seen, request, backend),
        Some(backend) if backend.request_id.is_some() => Some(DaemonAction::RemoveBackend(String::new())),
        other => without_backend(seen, request, other.is_some()),
    }
}

/// The backend is the request's.
fn with_backend(seen: &DaemonSnapshot, request: &Request, backend: &Backend) -> Option<DaemonAction> {
    let drop = |why: &str| Some(DaemonAction::RemoveBackend(why.to_owned()));
    let connected = backend.status == HotplugStatus::Connected;
    match request.state {
        State::Requested | State::Accepted | State::Ready | State::InUse => {
            if !seen.refusal.is_empty() {
                return drop(&seen.refusal);
            }
            if !seen.frontend {
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
        // Before it is set up no guest uses it, and one that has no driver will never answer.
        State::Detaching if request.force || !seen.frontend || (!connected && backend.online) => drop(""),
        State::Detaching if backend.online => Some(DaemonAction::RequestClose),
        // It waits for the guest, and then for the device's machine.
        State::Detaching => None,
        State::Closed => drop(""),
        State::Unknown => None,
    }
}

/// There is no backend of the request's; perhaps one of libxl's.
fn without_backend(seen: &DaemonSnapshot, request: &Request, foreign: bool) -> Option<DaemonAction> {
    let close = |why: &str| {
        let why = if request.error.is_empty() { why } else { "" };
        Some(DaemonAction::Close(why.to_owned()))
    };
    if seen.held && !foreign {
        return None;
    }
    match request.state {
        State::Requested if !seen.refusal.is_empty() => close(&seen.refusal),
        State::Requested if foreign => close("there is such a device, made by another toolstack"),
        State::Requested if !seen.frontend => close(GUEST_GONE),
        State::Requested => Some(DaemonAction::CreateBackend),
        State::Accepted | State::Ready | State::InUse if !seen.frontend => close(GUEST_GONE),
        State::Accepted | State::Ready | State::InUse => close("the backend's directory was removed"),
        State::Detaching => close(""),
        State::Closed | State::Unknown => None,
    }
}

const GUEST_GONE: &str = "the guest has gone, or does not let this domain write its frontend";
