//! Error nodes in the backend's directory, which `xl` reads after a failed attach.

use std::time::Duration;

use xenplug_xenstore::{Backoff, Endpoint, Error, Path, blocking::Client};

/// Timeout of a request to the store, within libxl's own.
const DEADLINE: Duration = Duration::from_secs(2);

/// Origin of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorSource {
    /// The daemon, which has written its error itself unless it could not even begin.
    Daemon,
    /// The shim itself.
    Shim,
}

/// Result of writing an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The store has an error.
    Error,
    /// Nothing is written, since the device is connected: after a repeated `add`, or if the daemon ended right after it
    /// published.
    Connected,
    /// Nothing is written, since the toolstack has removed the directory, which must not be recreated.
    Gone,
}

/// Writes the error of a device that is not connected, if the device still exists.
///
/// For a tap only the error is written: the status belongs to its vif, which the guest may wait for.
pub(crate) fn write_error(backend: &str, error: &str, source: ErrorSource, emulated: bool) -> Result<Written, Error> {
    let backend: Path = backend.parse()?;
    let status = backend.join("hotplug-status")?;
    let state = backend.join("state")?;
    let cause = backend.join("hotplug-error")?;
    Client::connect(&Endpoint::from_env(), DEADLINE)?.transaction(&Backoff::default(), |transaction| {
        // The toolstack writes directory and state together (libxl_device.c, `libxl__device_generic_add`).
        match transaction.read(&state) {
            Err(error) if error.is_not_found() => return Ok(Written::Gone),
            state => state?,
        };
        match (transaction.read(&status), source) {
            (_, ErrorSource::Daemon) if emulated => return Ok(Written::Error),
            _ if emulated => {}
            (Ok(status), _) if status == b"connected" => return Ok(Written::Connected),
            (Ok(status), ErrorSource::Daemon) if status == b"error" || status == b"busy" => return Ok(Written::Error),
            (Err(error), _) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        let prefix = match source {
            ErrorSource::Daemon => "",
            ErrorSource::Shim => "xenplug-script: ",
        };
        transaction.write(&cause, format!("{prefix}{error}"))?;
        if !emulated {
            transaction.write(&status, "error")?;
        }
        Ok(Written::Error)
    })
}
