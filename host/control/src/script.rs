//! What the scripts' stand-in asks the daemon, and what it is answered.

use serde::{Deserialize, Serialize};

/// A hotplug script was run: by libxl (`tools/libs/light/libxl_linux.c`) or by udev.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Call {
    /// The script's name, without its folder: `block`.
    pub script: String,
    /// What it was told to do.
    pub action: Action,
    /// `XENBUS_PATH`: the backend's directory, absolute or relative to the caller's domain: `backend/vbd/3/51712`.
    pub backend: String,
}

/// A hotplug script's first argument.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// `add` or `online`: make the device ready.
    Add,
    /// `remove` or `offline`: take it down.
    Remove,
}

/// How that ended.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Answer {
    /// The device is as the script was to make it, perhaps since long.
    Done,
    /// It is not, and after an [`Action::Add`] `hotplug-error` in its directory says why, too.
    Failed {
        /// Why, in one line.
        error: String,
    },
    /// The device is none of the daemon's: no plugin stands in for the script, or the original script made it ready.
    NotServed {
        /// Why, in one line.
        error: String,
    },
}
