//! Messages and clients of the daemon's control socket.
//!
//! It speaks HTTP on a Unix socket, `/run/xenplug/control.sock`, that only root can open:
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /status` | [`Status`] as JSON |
//! | `GET /metrics` | metrics in the OpenMetrics text format |
//! | `POST /script` with a [`script::Call`] as JSON | a [`script::Answer`] as JSON, once the device is ready or down |
//!
//! so that `curl --unix-socket /run/xenplug/control.sock http://xenplug/metrics` works as well as `Client`,
//! the asynchronous one (feature `client`, a default). [`script::send`] is the blocking one, for a single script
//! call, and [`Settings`] the part of the daemon's configuration that its clients need.

#[cfg(feature = "client")]
mod client;
pub mod script;
mod settings;

use std::error::Error as StdError;

use serde::{Deserialize, Serialize};

#[cfg(feature = "client")]
pub use client::{Client, Error};
pub use settings::{Error as SettingsError, Fallback, Settings};

/// Default path of the socket.
pub const DEFAULT_SOCKET: &str = "/run/xenplug/control.sock";

/// State of the daemon and of its devices.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// `driver-domain` or `dom0`.
    pub mode: String,
    /// Domain that the daemon runs in.
    pub domain: u16,
    /// Connection to xenstore.
    pub store: Store,
    /// Loaded plugins, by name.
    pub plugins: Vec<Plugin>,
    /// Devices, by kind, domain and number.
    pub devices: Vec<Device>,
}

/// Connection of the daemon to xenstore.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Store {
    /// Path of the socket or device.
    pub endpoint: String,
    /// The connection is up.
    pub connected: bool,
}

/// Loaded plugin.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Plugin {
    /// Name in the configuration.
    pub name: String,
    /// Summary from its `describe`.
    pub summary: String,
    /// Kinds of backend that it serves.
    pub kinds: Vec<String>,
    /// Scripts that it replaces.
    pub scripts: Vec<String>,
    /// Granted interfaces that it imports.
    pub imports: Vec<String>,
    /// The guests that it backs off from, after failures by its own fault.
    #[serde(default)]
    pub backoffs: Vec<Backoff>,
}

/// A guest for which a plugin does not run for a while.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Backoff {
    /// The guest's `vm` node or, where that is not known, its domain's path.
    pub guest: String,
    /// Failures in a row.
    pub failures: u32,
    /// Seconds since the epoch when the plugin may run for the guest again.
    pub until: u64,
    /// The last failure.
    pub cause: String,
}

/// Device that the daemon knows.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Device {
    /// Kind of backend: `vbd`, `vif`, ...
    pub kind: String,
    /// Domain that uses the device.
    pub frontend: u16,
    /// Device number.
    pub devid: u32,
    /// The entry is the tap of an emulated vif.
    #[serde(default)]
    pub emulated: bool,
    /// The guest's `vm` path, if known.
    pub vm: Option<String>,
    /// Plugin that serves the device.
    pub plugin: Option<String>,
    /// Phase of the device, such as `connected`.
    pub state: String,
    /// Start of the phase, in seconds since the epoch.
    pub since: u64,
    /// Descriptions of the held resources, oldest first.
    pub held: Vec<String>,
    /// Last error of the device.
    pub error: Option<String>,
}

/// Formats an error with its chain of causes, joined by `: `. Each error of this project names only its own part.
pub fn error_chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
