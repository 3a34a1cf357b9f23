//! Failures of a plugin's event.

use wasmtime::Trap;

use crate::{bindings::xen::hotplug::types, call_error::Stop, device::DeviceError, limits::Limits, text::clean};

/// Bytes of the longest `hotplug-error`.
pub(crate) const ERROR_LINE: usize = 512;

/// A failed event. The message is one line, fit for `hotplug-error` after the plugin's name.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The handler says that what it needs is in use.
    #[error("{0}")]
    Busy(String),
    /// The handler says why it cannot.
    #[error("{0}")]
    Refused(String),
    /// The handler's answer cannot be published.
    #[error(transparent)]
    Answer(#[from] DeviceError),
    /// The handler trapped.
    #[error("the plugin crashed: {0}")]
    Trapped(String),
    /// The handler was stopped at one of its limits.
    #[error("the plugin {0}")]
    Stopped(String),
    /// The handler was stopped, as nobody wants its result any longer.
    #[error("the plugin {0}")]
    Cancelled(String),
}

impl Fault {
    /// Returns whether the plugin itself is at fault. A refusal of a device, or a cancelled event, is no fault of the
    /// plugin.
    pub fn is_the_plugins(&self) -> bool {
        match self {
            Self::Busy(_) | Self::Refused(_) | Self::Cancelled(_) => false,
            Self::Answer(_) | Self::Trapped(_) | Self::Stopped(_) => true,
        }
    }

    pub(crate) fn of(error: types::Error) -> Self {
        let line = |text: String| clean(&text, ERROR_LINE);
        match error {
            types::Error::Busy(what) => Self::Busy(line(what)),
            types::Error::InvalidParams(types::BadParam { key, cause }) => {
                Self::Refused(line(format!("{}: {cause}", clean(&key, 64))))
            }
            types::Error::NotFound(what)
            | types::Error::Denied(what)
            | types::Error::Unavailable(what)
            | types::Error::Other(what) => Self::Refused(line(what)),
        }
    }

    pub(crate) fn at(stop: Stop, limits: &Limits) -> Self {
        Self::Stopped(match stop {
            Stop::Deadline => format!("{stop} of {:?}", limits.deadline),
            Stop::Calls => format!("{stop} ({})", limits.calls),
            Stop::Handles => format!("{stop} ({})", Limits::HANDLES),
            Stop::Resources => format!("{stop} ({})", Limits::RESOURCES),
            Stop::Cancelled => return Self::Cancelled(stop.to_string()),
        })
    }

    /// `refused_memory`: whether the guest was refused memory before, in which case its trap says nothing of why.
    pub(crate) fn of_trap(error: &wasmtime::Error, limits: &Limits, refused_memory: bool) -> Self {
        if let Some(stop) = error.downcast_ref::<Stop>() {
            return Self::at(*stop, limits);
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::at(Stop::Deadline, limits),
            Some(trap) if refused_memory => Self::Trapped(format!(
                "{trap}, after it was refused more than its {} KiB of memory",
                limits.memory >> 10
            )),
            Some(trap) => Self::Trapped(trap.to_string()),
            // Around the cause is where in the component it was, without names.
            None => Self::Trapped(clean(&error.root_cause().to_string(), ERROR_LINE / 2)),
        }
    }
}
