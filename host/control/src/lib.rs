//! The daemon's control socket: what it answers, and who asks it.
//!
//! It speaks HTTP on a Unix socket, `/run/xenplug/control.sock`, that only root can open:
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /status` | [`Status`] as JSON |
//! | `GET /metrics` | metrics in the OpenMetrics text format |
//! | `POST /plugins/NAME/release` | 204, and the plugin runs again as if it had never failed; 404 without such a plugin |
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
    /// How it behaves.
    #[serde(default)]
    pub conduct: Conduct,
}

/// How a plugin behaves: what it did that no device is to blame for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Conduct {
    /// The most faults in a row that it has with a guest. After each it is left alone for longer.
    pub faults: u32,
    /// For whom it is quarantined: what it is asked for fails at once.
    pub quarantines: Vec<Quarantine>,
}

/// That a plugin is quarantined.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Quarantine {
    /// The guest it is quarantined for: its `vm` node or, where that is not known, its domain. None means all.
    pub guest: Option<String>,
    /// Seconds since the epoch when it is tried again.
    pub until: u64,
    /// The faults in a row that this is for.
    pub faults: u32,
    /// The last of them.
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
