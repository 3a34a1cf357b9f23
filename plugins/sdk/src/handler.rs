//! The trait that a handler implements.

use crate::{Connection, Description, Device, Error};

/// A handler. [`export!`](crate::export!) makes it the component's.
///
/// Each call is made on a fresh instance: a `static` holds nothing from one call to the next.
pub trait Handler {
    /// Says what the handler is. Called once, when the plugin is loaded, with nothing granted but [`log`](crate::log).
    fn describe() -> Description;

    /// Makes the device ready, and returns the nodes to publish. What was taken for it is given back by the host if
    /// this fails.
    ///
    /// The error's text becomes `hotplug-error` in xenstore, after the plugin's name. A panic ends the call as an
    /// error too, and its message is logged.
    fn connect(device: &Device) -> Result<Connection, Error>;

    /// A courtesy before the host gives back what the device holds, for those who asked for it with
    /// [`Description::with_disconnect`]. It is not to be relied on: after a crash it is not called.
    fn disconnect(_device: &Device) -> Result<(), Error> {
        Ok(())
    }
}
