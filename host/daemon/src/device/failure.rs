//! Why a device is not connected, as its directory and the scripts' calls are told.

use xenplug_runtime::{Fault, clean};

/// Bytes of the longest `hotplug-error`: well below the 2048 that a node may have.
const ERROR_MAX: usize = 1000;

/// Why a device is not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `error` or `busy`.
    pub(crate) status: &'static str,
    /// One line, beginning with the plugin's name.
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(plugin: &str, cause: &str) -> Self {
        Self {
            status: "error",
            text: clean(&format!("{plugin}: {cause}"), ERROR_MAX),
        }
    }

    pub(super) fn of(plugin: &str, fault: &Fault) -> Self {
        let status = if matches!(fault, Fault::Busy(_)) {
            "busy"
        } else {
            "error"
        };
        Self {
            status,
            ..Self::new(plugin, &fault.to_string())
        }
    }
}
