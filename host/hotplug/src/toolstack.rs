//! The toolstack's side: the next step of an attach or a detach.
//!
//! | operation | request | next |
//! | --- | --- | --- |
//! | attach | none, no frontend | [`ToolstackAction::Create`] |
//! | attach | none, a frontend | fails: another toolstack's |
//! | attach | ours: requested, accepted | waits |
//! | attach | ours: ready, in use | done |
//! | attach | ours: closed | [`ToolstackAction::Remove`]; then it fails, with the driver domain's error |
//! | attach | ours: detaching, or no longer there | fails: detached elsewhere |
//! | attach | another's, of this guest, not closed | fails: exists |
//! | attach | another's, of a guest that is gone | as for detach |
//! | attach | another's, closed | [`ToolstackAction::Remove`] |
//! | detach | none | done |
//! | detach | requested, closed | [`ToolstackAction::Remove`] |
//! | detach | accepted, ready, in use, unknown | [`ToolstackAction::RequestDetach`] |
//! | detach | detaching | waits; [`ToolstackAction::Force`] if the guest is not to be waited for |
//! | both | any, and the driver domain is gone | [`ToolstackAction::Remove`], for an attach a failure |

use crate::{Request, RequestId, State};

/// Operation of a toolstack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Attach the device by a request with this id.
    Attach {
        /// Id of the request.
        id: RequestId,
        /// The request was written; from then on the operation only waits for it.
        written: bool,
    },
    /// Detach the device.
    Detach {
        /// Request that was first read there; another one is another device's.
        id: Option<RequestId>,
        /// Do not wait for the guest.
        force: bool,
    },
}

/// State of the store that a toolstack decides by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ToolstackSnapshot {
    /// The device's request.
    pub request: Option<Request>,
    /// The guest's `vm` node, or `None` if there is no such guest.
    pub vm: Option<String>,
    /// The frontend's directory exists.
    pub frontend: bool,
    /// The driver domain exists and is the one that was prepared.
    pub driver_domain: bool,
}

/// Action of a toolstack, done in one transaction that takes the snapshot again and changes nothing if the next step is
/// another by then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ToolstackAction {
    /// Write the request and make the empty directory of the frontend.
    Create,
    /// Write [`State::Detaching`], and `force` as the operation has it.
    RequestDetach,
    /// Write `force`.
    Force,
    /// Remove the request, and the frontend's directory if it was made for the request and is of the same guest.
    Remove,
}

/// Result of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OperationOutcome {
    /// The device is set up.
    Attached,
    /// The device is gone and nothing is held for it any more.
    Detached,
    /// The guest does not exist.
    NoGuest,
    /// The driver domain is gone, or was never prepared.
    NoDriverDomain,
    /// The device exists already.
    Exists {
        /// It has a request; otherwise another toolstack has made it.
        requested: bool,
    },
    /// Somebody else detaches the device.
    DetachedElsewhere,
    /// The driver domain refused the request or failed to set the device up, with this error.
    Failed(String),
}

/// Next step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// Wait until something changes.
    Wait,
    /// Carry out this action and go on.
    Do(ToolstackAction),
    /// Carry out the action, if any, and end with this result.
    Finish(Option<ToolstackAction>, OperationOutcome),
}

/// Returns the next step of an operation.
pub fn next(operation: &Operation, snapshot: &ToolstackSnapshot) -> NextStep {
    match operation {
        Operation::Attach { id, written } => attach(*id, *written, snapshot),
        Operation::Detach { id, force } => match &snapshot.request {
            Some(request) if id.is_none_or(|id| id == request.id) => detach(*force, snapshot, request),
            _ => NextStep::Finish(None, OperationOutcome::Detached),
        },
    }
}

fn attach(id: RequestId, written: bool, snapshot: &ToolstackSnapshot) -> NextStep {
    match &snapshot.request {
        Some(request) if request.id == id => match request.state {
            State::Closed => NextStep::Finish(
                Some(ToolstackAction::Remove),
                OperationOutcome::Failed(if request.error.is_empty() {
                    "the driver domain does not say why".to_owned()
                } else {
                    request.error.clone()
                }),
            ),
            _ if !snapshot.driver_domain => {
                NextStep::Finish(Some(ToolstackAction::Remove), OperationOutcome::NoDriverDomain)
            }
            State::Ready | State::InUse => NextStep::Finish(None, OperationOutcome::Attached),
            State::Detaching => NextStep::Finish(None, OperationOutcome::DetachedElsewhere),
            State::Requested | State::Accepted | State::Unknown => NextStep::Wait,
        },
        _ if written => NextStep::Finish(None, OperationOutcome::DetachedElsewhere),
        _ if !snapshot.driver_domain => NextStep::Finish(None, OperationOutcome::NoDriverDomain),
        _ if snapshot.vm.is_none() => NextStep::Finish(None, OperationOutcome::NoGuest),
        Some(request) if request.state == State::Closed => NextStep::Do(ToolstackAction::Remove),
        Some(request) if snapshot.vm.as_ref() == Some(&request.vm) => {
            NextStep::Finish(None, OperationOutcome::Exists { requested: true })
        }
        // The request's guest is gone, so nobody has to be waited for.
        Some(request) => match detach(true, snapshot, request) {
            NextStep::Finish(action, _) => action.map_or(NextStep::Wait, NextStep::Do),
            other => other,
        },
        None if snapshot.frontend => NextStep::Finish(None, OperationOutcome::Exists { requested: false }),
        None => NextStep::Do(ToolstackAction::Create),
    }
}

fn detach(force: bool, snapshot: &ToolstackSnapshot, request: &Request) -> NextStep {
    match request.state {
        // The domain's resources are gone with it.
        _ if !snapshot.driver_domain => NextStep::Finish(Some(ToolstackAction::Remove), OperationOutcome::Detached),
        // Accepting is one transaction, so nothing exists before it.
        State::Requested | State::Closed => NextStep::Finish(Some(ToolstackAction::Remove), OperationOutcome::Detached),
        State::Accepted | State::Ready | State::InUse | State::Unknown => NextStep::Do(ToolstackAction::RequestDetach),
        State::Detaching if force && !request.force => NextStep::Do(ToolstackAction::Force),
        State::Detaching => NextStep::Wait,
    }
}
