//! Trait of handlers.

use crate::{Connection, Description, Device, Error};

/// Handler of a plugin, exported by [`export!`](crate::export!).
///
/// The daemon makes each call on a fresh instance: a `static` keeps no value from one call to the next.
pub trait Handler {
    /// Describes the handler. Called once when the plugin is loaded, with only [`log`](crate::log) granted.
    fn describe() -> Description;

    /// Connects the device, and returns the nodes to publish. If it fails, the daemon releases the acquired resources.
    ///
    /// The error's text becomes `hotplug-error` in xenstore, after the plugin's name. A panic ends the call as an error
    /// too, and its message is logged.
    fn connect(device: &Device) -> Result<Connection, Error>;

    /// Runs before the daemon releases the device's resources, if [`Description::with_disconnect`] requests it. Do not
    /// rely on it: after a crash the daemon does not call it.
    fn disconnect(_device: &Device) -> Result<(), Error> {
        Ok(())
    }
}
