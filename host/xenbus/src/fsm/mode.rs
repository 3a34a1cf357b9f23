//! Mode of a daemon and of a device.

use serde::{Deserialize, Serialize};

/// Owner of a device's removal: the daemon's mode, except for a device made for a request
/// ([`Observation::mode`](super::Observation::mode)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The daemon removes the directory once everything is released, as `xl devd` does.
    DriverDomain,
    /// The toolstack removes the directory, as with the scripts of `/etc/xen/scripts`.
    Dom0,
}
