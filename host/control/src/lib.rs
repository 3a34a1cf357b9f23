//! The daemon's control socket: what it answers, and who asks it.
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
//! the asynchronous one (feature `client`, a default). [`script::send`] is the blocking one, for a single call, and
//! [`Settings`] what the daemon's configuration tells those who ask.

#[cfg(feature = "client")]
mod client;
pub mod script;
mod settings;

use serde::{Deserialize, Serialize};

#[cfg(feature = "client")]
pub use client::{Client, Error};
pub use settings::{Error as SettingsError, Fallback, Settings};

/// Where the socket is, unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/xenplug/control.sock";

/// What the daemon is, and every device it knows.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// `driver-domain` or `dom0`.
    pub mode: String,
    /// The domain it runs in.
    pub domain: u16,
    /// The store it is connected to, and whether it is now.
    pub store: Store,
    /// The plugins it has loaded, by name.
    pub plugins: Vec<Plugin>,
    /// The devices, by kind, domain and number.
    pub devices: Vec<Device>,
}

/// The daemon's connection to xenstore.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Store {
    /// The socket or device.
    pub endpoint: String,
    /// Whether the connection stands.
    pub connected: bool,
}

/// A plugin that is loaded.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Plugin {
    /// Its name in the configuration.
    pub name: String,
    /// What it says of itself.
    pub summary: String,
    /// The kinds of backend it serves.
    pub kinds: Vec<String>,
    /// The scripts it stands in for.
    pub scripts: Vec<String>,
    /// The granted interfaces it imports.
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

/// A device.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Device {
    /// `vbd`, `vif`, ...
    pub kind: String,
    /// The domain it is for.
    pub frontend: u16,
    /// Its number.
    pub devid: u32,
    /// Whether this is about the tap of an emulated card.
    #[serde(default)]
    pub emulated: bool,
    /// The virtual machine's node, if it is known.
    pub vm: Option<String>,
    /// The plugin that serves it.
    pub plugin: Option<String>,
    /// Where it is in its life, such as `connected`.
    pub state: String,
    /// Seconds since the epoch when it came to that state.
    pub since: u64,
    /// What is held for it, oldest first, in words.
    pub held: Vec<String>,
    /// Its last error.
    pub error: Option<String>,
}
