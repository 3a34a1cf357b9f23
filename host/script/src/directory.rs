//! The backend's directory in the store, where `xl` reads why a device was not plugged.

use std::time::Duration;

use xenplug_xenstore::{Backoff, Endpoint, Error, Path, blocking::Client};

/// How long the store may say nothing to a request: what libxl's patience leaves.
const DEADLINE: Duration = Duration::from_secs(2);

/// Whose error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Teller {
    /// The daemon's: it has told the store itself, but for what it cannot even begin with.
    Daemon,
    /// The stand-in's.
    StandIn,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is there to be read.
    Written,
    /// Nothing is written: the device is connected, whatever its script says. A repeated `add` finds it so, and one whose
    /// daemon ended right after publishing.
    Connected,
    /// Nothing is written: the toolstack has removed the directory, which must not come back.
    Gone,
}

/// Writes why a device is not plugged, in one transaction with the look at whether there is such a device.
///
/// Of a tap only the error is written: the status is that of its card, whose guest may wait for it.
pub(crate) fn tell(backend: &str, error: &str, teller: Teller, emulated: bool) -> Result<Told, Error> {
    let backend: Path = backend.parse()?;
    let status = backend.join("hotplug-status")?;
    let state = backend.join("state")?;
    let cause = backend.join("hotplug-error")?;
    Client::connect(&Endpoint::from_env(), DEADLINE)?.transaction(&Backoff::default(), |transaction| {
        // The toolstack writes directory and state together (libxl_device.c, `libxl__device_generic_add`).
        match transaction.read(&state) {
            Err(error) if error.is_not_found() => return Ok(Told::Gone),
            state => state?,
        };
        match (transaction.read(&status), teller) {
            (_, Teller::Daemon) if emulated => return Ok(Told::Written),
            _ if emulated => {}
            (Ok(status), _) if status == b"connected" => return Ok(Told::Connected),
            (Ok(status), Teller::Daemon) if status == b"error" || status == b"busy" => return Ok(Told::Written),
            (Err(error), _) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        let by = match teller {
            Teller::Daemon => "",
            Teller::StandIn => "xenplug-script: ",
        };
        transaction.write(&cause, format!("{by}{error}"))?;
        if !emulated {
            transaction.write(&status, "error")?;
        }
        Ok(Told::Written)
    })
}
