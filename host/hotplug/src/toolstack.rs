//! The toolstack's side: what is next for somebody who wants a device to be there, or gone.
//!
//! | wish | request | next |
//! | --- | --- | --- |
//! | attach | none, no frontend | [`ToolstackAction::Create`] |
//! | attach | none, a frontend | fails: another toolstack's |
//! | attach | ours: wanted, taken | waits |
//! | attach | ours: ready, used | done |
//! | attach | ours: closed | [`ToolstackAction::Remove`]; then it fails, with the driver domain's error |
//! | attach | ours: unwanted, or no longer there | fails: somebody else detaches it |
//! | attach | another's, of this guest, not closed | fails: there is one |
//! | attach | another's, of a guest that has gone | as for detach |
//! | attach | another's, closed | [`ToolstackAction::Remove`] |
//! | detach | none | done |
//! | detach | wanted, closed | [`ToolstackAction::Remove`] |
//! | detach | taken, ready, used, unknown | [`ToolstackAction::RequestDetach`] |
//! | detach | unwanted | waits; [`ToolstackAction::Force`] if the guest is not to be waited for |
//! | both | any, and the driver domain has gone | [`ToolstackAction::Remove`], for an attach a failure |

use crate::{Request, RequestId, State};

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The device, by a request of that id.
    Attach {
        /// The request that is written.
        id: RequestId,
        /// Whether it was written: from then on it is only waited for.
        written: bool,
    },
    /// That the device goes.
    Detach {
        /// The request that was first seen there: another one is another device.
        id: Option<RequestId>,
        /// Whether the guest is not to be waited for.
        force: bool,
    },
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ToolstackSnapshot {
    /// The request at the device's place.
    pub request: Option<Request>,
    /// The guest's `vm` node. `None` if there is no such guest.
    pub vm: Option<String>,
    /// Whether the frontend's directory is there.
    pub frontend: bool,
    /// Whether the driver domain is there, and the one that was prepared.
    pub driver_domain: bool,
}

/// What to do, in one transaction that looks again and changes nothing if something else is next by then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ToolstackAction {
    /// Write the request, and make the empty directory of the frontend.
    Create,
    /// Write [`State::Detaching`], and `force` as wished.
    RequestDetach,
    /// Write `force`.
    Force,
    /// Remove the request, and the frontend's directory if it was made for the request and is of the same guest.
    Remove,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OperationOutcome {
    /// The device is set up.
    Attached,
    /// The device has gone, and nothing is held for it any more.
    Detached,
    /// There is no such guest.
    NoGuest,
    /// The driver domain has gone, or was never prepared.
    NoDriverDomain,
    /// There is such a device; with a request, or another toolstack's.
    Exists {
        /// Whether it has a request.
        requested: bool,
    },
    /// Somebody else detaches it.
    DetachedElsewhere,
    /// The driver domain did not serve it.
    Failed(String),
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// Wait until something changes.
    Wait,
    /// Do this.
    Do(ToolstackAction),
    /// It is over; after the action, if there is one.
    Finish(Option<ToolstackAction>, OperationOutcome),
}

/// What is next for a wish.
pub fn next(wish: &Operation, seen: &ToolstackSnapshot) -> NextStep {
    match wish {
        Operation::Attach { id, written } => attach(*id, *written, seen),
        Operation::Detach { id, force } => match &seen.request {
            Some(request) if id.is_none_or(|id| id == request.id) => detach(*force, seen, request),
            _ => NextStep::Finish(None, OperationOutcome::Detached),
        },
    }
}

fn attach(id: RequestId, written: bool, seen: &ToolstackSnapshot) -> NextStep {
    match &seen.request {
        Some(request) if request.id == id => match request.state {
            State::Closed => NextStep::Finish(
                Some(ToolstackAction::Remove),
                OperationOutcome::Failed(if request.error.is_empty() {
                    "the driver domain does not say why".to_owned()
                } else {
                    request.error.clone()
                }),
            ),
            _ if !seen.driver_domain => {
                NextStep::Finish(Some(ToolstackAction::Remove), OperationOutcome::NoDriverDomain)
            }
            State::Ready | State::InUse => NextStep::Finish(None, OperationOutcome::Attached),
            State::Detaching => NextStep::Finish(None, OperationOutcome::DetachedElsewhere),
            State::Requested | State::Accepted | State::Unknown => NextStep::Wait,
        },
        _ if written => NextStep::Finish(None, OperationOutcome::DetachedElsewhere),
        _ if !seen.driver_domain => NextStep::Finish(None, OperationOutcome::NoDriverDomain),
        _ if seen.vm.is_none() => NextStep::Finish(None, OperationOutcome::NoGuest),
        Some(request) if request.state == State::Closed => NextStep::Do(ToolstackAction::Remove),
        Some(request) if seen.vm.as_ref() == Some(&request.vm) => {
            NextStep::Finish(None, OperationOutcome::Exists { requested: true })
        }
        // A guest that has gone leaves nobody to wait for.
        Some(request) => match detach(true, seen, request) {
            NextStep::Finish(action, _) => action.map_or(NextStep::Wait, NextStep::Do),
            other => other,
        },
        None if seen.frontend => NextStep::Finish(None, OperationOutcome::Exists { requested: false }),
        None => NextStep::Do(ToolstackAction::Create),
    }
}

fn detach(force: bool, seen: &ToolstackSnapshot, request: &Request) -> NextStep {
    match request.state {
        // What a domain held has gone with it.
        _ if !seen.driver_domain => NextStep::Finish(Some(ToolstackAction::Remove), OperationOutcome::Detached),
        // Nothing is made before it is taken up, in one transaction.
        State::Requested | State::Closed => NextStep::Finish(Some(ToolstackAction::Remove), OperationOutcome::Detached),
        State::Accepted | State::Ready | State::InUse | State::Unknown => NextStep::Do(ToolstackAction::RequestDetach),
        State::Detaching if force && !request.force => NextStep::Do(ToolstackAction::Force),
        State::Detaching => NextStep::Wait,
    }
}
