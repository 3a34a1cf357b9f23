//! Lines for the daemon's log, always granted. The daemon limits their rate and length.

use crate::bindings::xen::hotplug::log;

/// Logs details for the handler's author.
pub fn debug(message: &str) {
    log::write(log::Level::Debug, message);
}

/// Logs normal operation for the operator.
pub fn info(message: &str) {
    log::write(log::Level::Info, message);
}

/// Logs a problem that the operator should investigate.
pub fn warn(message: &str) {
    log::write(log::Level::Warn, message);
}

/// Logs a failure that the operator has to act on.
pub fn error(message: &str) {
    log::write(log::Level::Error, message);
}
