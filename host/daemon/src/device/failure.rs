//! The reason why a device is not connected, for its directory and its scripts.

use xenplug_runtime::{Fault, clean};

/// Bytes of the longest `hotplug-error`: well below the 2048 that a node may have.
const ERROR_MAX: usize = 1000;

/// The reason why a device is not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// `error` or `busy`.
    pub(super) status: &'static str,
    /// One line that begins with the plugin's name.
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(plugin: &str, cause: &str) -> Self {
        Self {
            status: "error",
            text: clean(&format!("{plugin}: {cause}"), ERROR_MAX),
        }
    }

    pub(super) fn of(plugin: &str, fault: &Fault) -> Self {
        let status = match fault {
            Fault::Busy(_) => "busy",
            _ => "error",
        };
        Self {
            status,
            ..Self::new(plugin, &fault.to_string())
        }
    }
}
