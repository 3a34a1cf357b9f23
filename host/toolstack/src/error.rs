//! Errors of the calls, and the progress that a timeout reports.

use std::{fmt, io, time::Duration};

use xenplug_hotplug::{RequestPath, State};
use xenplug_xenbus::DomId;

/// Error of a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No domain has this name.
    #[error("there is no domain `{0}`")]
    NoDomain(String),
    /// Several domains have this name.
    #[error("several domains have the name `{0}`; name one by its id")]
    SeveralDomains(String),
    /// The guest does not exist.
    #[error("there is no domain {0}")]
    NoGuest(DomId),
    /// The driver domain does not exist or is not prepared.
    #[error("domain {0} is gone or is not prepared to serve devices: run `xenplug prepare {0}`")]
    NoDriverDomain(DomId),
    /// The device exists already.
    #[error("{0} is there already; detach it first")]
    Exists(RequestPath),
    /// The device exists already and another toolstack has made it.
    #[error("domain {guest} has a device {class}/{devid} already, which another toolstack has made", guest = .0.frontend, class = .0.class, devid = .0.devid)]
    Foreign(RequestPath),
    /// The device does not exist.
    #[error("there is no {0}")]
    NoDevice(RequestPath),
    /// Somebody else detaches the device.
    #[error("{0} is being detached by somebody else")]
    DetachedElsewhere(RequestPath),
    /// The driver domain's error.
    #[error("{0}")]
    Failed(String),
    /// The operation did not end in time.
    #[error("{waited:?} have passed, and {path} is {state}")]
    Timeout {
        /// Path of the request.
        path: RequestPath,
        /// Time waited.
        waited: Duration,
        /// Progress by then.
        state: Progress,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] xenplug_xenstore::Error),
    /// There is no random number for the request's id.
    #[error("cannot read /dev/urandom")]
    Random(#[from] io::Error),
}

impl From<xenplug_xenstore::PathError> for Error {
    fn from(error: xenplug_xenstore::PathError) -> Self {
        Self::Store(error.into())
    }
}

/// Progress of a device's request, or `None` without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress(pub Option<State>);

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "not there",
            Some(State::Requested) => "requested; the driver domain has not accepted it",
            Some(State::Accepted) => "being set up",
            Some(State::Ready) => "set up; the guest may connect",
            Some(State::InUse) => "in use",
            Some(State::Detaching) => "being released",
            Some(State::Closed) => "closed",
            Some(State::Unknown) => "in an unknown state",
        })
    }
}
