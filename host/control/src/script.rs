//! What the scripts' stand-in asks the daemon, and what it is answered.

mod send;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use send::{Error, send};

/// The name of the program that stands in for scripts.
pub const SHIM: &str = "xenplug-script";

/// What the saved original of a script is called, after the script's own name.
const SAVED: &str = ".xenplug-original";

/// Where a script's original is while a stand-in is in its place: in the same folder, as it reads others from there
/// (`$(dirname "$0")/block-common.sh`).
pub fn saved_original(script: &Path) -> PathBuf {
    let mut name = script.as_os_str().to_owned();
    name.push(SAVED);
    name.into()
}

/// The script of which this is the saved original, if it is one.
pub fn script_of_saved(path: &Path) -> Option<PathBuf> {
    let script = path.as_os_str().to_str()?.strip_suffix(SAVED)?;
    (!script.is_empty() && !script.ends_with('/')).then(|| script.into())
}

/// What the originals take from their arguments and their environment, besides the device
/// (tools/hotplug/Linux/vif-common.sh, vif-bridge, vif-nat).
pub const PARAMETERS: [&str; 4] = ["bridge", "dhcp", "ip", "netdev"];

/// Bytes of the longest value of a parameter: that of a node's which a handler is given.
pub const PARAMETER_MAX: usize = 1024;

/// Whether this may be a parameter: a known name, and a line of text of bounded length.
pub fn is_parameter(name: &str, value: &str) -> bool {
    PARAMETERS.contains(&name) && (1..=PARAMETER_MAX).contains(&value.len()) && !value.chars().any(char::is_control)
}

/// A hotplug script was run: by libxl (`tools/libs/light/libxl_linux.c`) or by udev.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Call {
    /// The script's name, without its folder: `block`.
    pub script: String,
    /// What it was told to do.
    pub action: ScriptAction,
    /// `XENBUS_PATH`: the backend's directory, absolute or relative to the caller's domain: `backend/vbd/3/51712`.
    pub backend: String,
    /// Whether it is about the tap of an emulated card: `type_if=tap`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emulated: bool,
    /// What the script was told besides: an argument, or else the environment. Each [`is_parameter`]; one that is empty
    /// counts as not given, as it does to the originals.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// A hotplug script's first argument.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptAction {
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
    /// It is not, and after an [`ScriptAction::Add`] `hotplug-error` in its directory says why, too.
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
