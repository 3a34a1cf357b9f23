//! Lines for the daemon's log, always granted. The host bounds their rate and length.

use crate::bindings::xen::hotplug::log;

/// Logs for the handler's author.
pub fn debug(message: &str) {
    log::write(log::Level::Debug, message);
}

/// Logs for the operator, on a good day.
pub fn info(message: &str) {
    log::write(log::Level::Info, message);
}

/// Logs for the operator, to look into.
pub fn warn(message: &str) {
    log::write(log::Level::Warn, message);
}

/// Logs for the operator, to act on.
pub fn error(message: &str) {
    log::write(log::Level::Error, message);
}
