//! Script calls: the messages of the shim to the daemon.

mod send;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use send::{Error, send};

/// Name of the shim's program.
pub const SHIM: &str = "xenplug-script";

/// Suffix of a saved original.
const SAVED: &str = ".xenplug-original";

/// Returns the path of a script's original while the shim replaces it: the same folder, since it sources other scripts from
/// there (`$(dirname "$0")/block-common.sh`).
pub fn saved_original(script: &Path) -> PathBuf {
    let mut name = script.as_os_str().to_owned();
    name.push(SAVED);
    name.into()
}

/// Returns the script that a saved original belongs to, or `None` for any other path.
pub fn script_of_saved(path: &Path) -> Option<PathBuf> {
    let script = path.as_os_str().to_str()?.strip_suffix(SAVED)?;
    (!script.is_empty() && !script.ends_with('/')).then(|| script.into())
}

/// Parameters of the original scripts, from their arguments and their environment
/// (tools/hotplug/Linux/vif-common.sh, vif-bridge, vif-nat).
pub const PARAMETERS: [&str; 4] = ["bridge", "dhcp", "ip", "netdev"];

/// Longest value of a parameter in bytes, as of a node that a handler reads.
pub const PARAMETER_MAX: usize = 1024;

/// Checks that a parameter has a known name and a single line of bounded length.
pub fn is_parameter(name: &str, value: &str) -> bool {
    PARAMETERS.contains(&name) && (1..=PARAMETER_MAX).contains(&value.len()) && !value.chars().any(char::is_control)
}

/// Run of a hotplug script, by libxl (`tools/libs/light/libxl_linux.c`) or udev.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Call {
    /// Name of the script without its folder: `block`.
    pub script: String,
    /// First argument of the script.
    pub action: ScriptAction,
    /// `XENBUS_PATH`: the backend's directory, absolute or relative to the caller's domain: `backend/vbd/3/51712`.
    pub backend: String,
    /// The call is about the tap of an emulated vif: `type_if=tap`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emulated: bool,
    /// Other parameters, from an argument or else the environment. Each satisfies [`is_parameter`]; an empty one counts as
    /// not given, as in the originals.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// First argument of a hotplug script.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptAction {
    /// `add` or `online`: connect the device.
    Add,
    /// `remove` or `offline`: release the device.
    Remove,
}

/// Answer to a script call.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Answer {
    /// The device is in the requested state, perhaps since before the call.
    Done,
    /// The call failed; after an [`ScriptAction::Add`] the device's `hotplug-error` has the cause as well.
    Failed {
        /// Cause, in one line.
        error: String,
    },
    /// The daemon does not serve the device: no plugin replaces the script, or the original script connected the device.
    NotServed {
        /// Cause, in one line.
        error: String,
    },
}
