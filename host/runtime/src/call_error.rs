//! Errors of host calls: for the guest to handle, or its end.

use wasmtime::component::ResourceTableError;
use xenplug_system::Error;

use crate::{held_resources::ResourceError, text::chain};

/// An error of a host call.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The operator has not granted it.
    Denied(String),
    /// A malformed or unusable parameter.
    Invalid { key: String, cause: String },
    /// It does not exist, or no longer.
    NotFound(String),
    /// Something else uses it.
    Busy(String),
    /// The host cannot do it now.
    Unavailable(String),
    /// The guest must not go on.
    Trap(wasmtime::Error),
}

/// A limit at which the host stops an event.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Stop {
    #[error("took longer than its deadline")]
    Deadline,
    #[error("was stopped, as the device went away or nobody waits for it any longer")]
    Cancelled,
    #[error("made more host calls than it may")]
    Calls,
    #[error("has more handles open than it may")]
    Handles,
    #[error("acquired more than a device may hold")]
    Resources,
}

impl CallError {
    pub(crate) fn invalid(key: &str, cause: impl ToString) -> Self {
        Self::Invalid {
            key: key.to_owned(),
            cause: cause.to_string(),
        }
    }
}

impl From<Stop> for CallError {
    fn from(stop: Stop) -> Self {
        Self::Trap(stop.into())
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        match error {
            Error::Denied(what) => Self::Denied(what),
            Error::Invalid { key, cause } => Self::invalid(key, cause),
            Error::NotFound(what) => Self::NotFound(what),
            Error::Busy(what) => Self::Busy(what),
            error @ Error::Kernel { .. } => Self::Unavailable(chain(&error)),
        }
    }
}

impl From<ResourceError> for CallError {
    fn from(error: ResourceError) -> Self {
        match error {
            ResourceError::Platform(error) => error.into(),
            ResourceError::TooMany => Stop::Resources.into(),
            ResourceError::Store(cause) => Self::Unavailable(cause),
            error @ ResourceError::Journal(_) => Self::Unavailable(chain(&error)),
        }
    }
}

/// A handle that is not, or no longer, the guest's is a mistake of the guest that no error of `wit/` covers.
impl From<ResourceTableError> for CallError {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => Stop::Handles.into(),
            error => Self::Trap(error.into()),
        }
    }
}
