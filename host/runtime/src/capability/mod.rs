//! The host's side of each WIT import, one file per interface: guest values become a request, errors become WIT errors.

mod block;
mod config;
mod firewall;
mod guest;
mod log;
mod network;
mod process;

use std::{fmt::Display, str::FromStr};

use tracing::warn;

use crate::{bindings::xen::hotplug::types, call_error::CallError, event::Event, limits::Limits, text::clean};

impl types::Host for Event {
    fn convert_error(&mut self, error: CallError) -> wasmtime::Result<types::Error> {
        match error {
            CallError::Denied(what) => {
                self.audit(&what);
                Ok(types::Error::Denied(what))
            }
            CallError::Invalid { key, cause } => Ok(types::Error::InvalidParams(types::BadParam { key, cause })),
            CallError::NotFound(what) => Ok(types::Error::NotFound(what)),
            CallError::Busy(what) => Ok(types::Error::Busy(what)),
            CallError::Unavailable(cause) => Ok(types::Error::Unavailable(cause)),
            CallError::Trap(error) => Err(error),
        }
    }
}

impl Event {
    /// Logs what the plugin wanted and was not granted, since its own error may hide it: as often as it may log.
    fn audit(&mut self, what: &str) {
        self.denials += 1;
        if self.denials <= self.context.limits.log_lines {
            let plugin = self.context.name.as_str();
            let device = self
                .subject
                .as_ref()
                .map(|subject| subject.device.instance().to_string());
            warn!(plugin, device, what = clean(what, Limits::LOG_LINE), "denied");
        }
    }
}

/// Parses a guest's parameter, named by its key.
fn parse<T: FromStr<Err: Display>>(key: &str, text: &str) -> Result<T, CallError> {
    text.parse().map_err(|error| CallError::invalid(key, error))
}
