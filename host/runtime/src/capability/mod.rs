//! The host's side of each WIT import, one file per interface: grant, then journal, then system.

#![allow(
    unreachable_pub,
    reason = "the generated bindings name the resources as if they were public"
)]

pub(crate) mod block;
mod config;
mod firewall;
mod guest;
mod log;
pub(crate) mod network;
pub(crate) mod process;

use tracing::warn;
use wasmtime::component::ResourceTableError;
use xenplug_system::Error;

use crate::{
    Limits, ResourceError,
    bindings::xen::hotplug::types,
    clean,
    event::{Event, Stop},
};

/// How a host call ends, if not well: with an error for the guest, or with its end.
#[derive(Debug)]
pub(crate) enum CallError {
    Guest(types::Error),
    Trap(wasmtime::Error),
}

impl CallError {
    pub(crate) fn denied(what: impl Into<String>) -> Self {
        Self::Guest(types::Error::Denied(what.into()))
    }

    pub(crate) fn invalid(key: &str, cause: impl Into<String>) -> Self {
        Self::Guest(types::Error::InvalidParams(types::BadParam {
            key: key.to_owned(),
            cause: cause.into(),
        }))
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Guest(match error {
            Error::Denied(what) => types::Error::Denied(what),
            Error::Invalid { key, cause } => types::Error::InvalidParams(types::BadParam {
                key: key.to_owned(),
                cause,
            }),
            Error::NotFound(what) => types::Error::NotFound(what),
            Error::Busy(what) => types::Error::Busy(what),
            error @ Error::Kernel { .. } => types::Error::Unavailable(error.to_string()),
        })
    }
}

impl From<ResourceError> for CallError {
    fn from(error: ResourceError) -> Self {
        match error {
            ResourceError::Platform(error) => error.into(),
            ResourceError::TooMuch => Self::Trap(Stop::Effects.into()),
            error @ ResourceError::Journal(_) => Self::Guest(types::Error::Unavailable(error.to_string())),
        }
    }
}

/// A handle that is not, or no longer, the guest's is the guest's mistake in a way that no error can tell it.
impl From<ResourceTableError> for CallError {
    fn from(error: ResourceTableError) -> Self {
        Self::Trap(match error {
            ResourceTableError::Full => Stop::Handles.into(),
            error => error.into(),
        })
    }
}

impl types::Host for Event {
    fn convert_error(&mut self, error: CallError) -> wasmtime::Result<types::Error> {
        match error {
            CallError::Guest(error) => {
                if let types::Error::Denied(what) = &error {
                    self.audit(what);
                }
                Ok(error)
            }
            CallError::Trap(error) => Err(error),
        }
    }
}

impl Event {
    /// Tells the log what the plugin wanted and was not granted: its own answer to that may hide it. A plugin that keeps
    /// trying is told of as often as it may log.
    fn audit(&mut self, what: &str) {
        self.denials += 1;
        if self.denials <= self.context.limits.log_lines {
            let plugin = self.context.name.as_str();
            let device = self.subject.as_ref().map(|subject| subject.device.part().to_string());
            warn!(plugin, device, what = clean(what, Limits::LOG_LINE), "denied");
        }
    }
}

/// For host calls that have no error to answer with.
fn must_go_on(event: &mut Event) -> wasmtime::Result<()> {
    event.call().map_err(|error| match error {
        CallError::Trap(error) => error,
        // `Event::call` only stops events; a guest error here would still have to end the call.
        CallError::Guest(error) => wasmtime::Error::msg(format!("{error:?}")),
    })
}
