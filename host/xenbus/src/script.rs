//! The `script` node: which hotplug script the guest's configuration asks for, and nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where libxl looks for scripts that are named without a directory (tools/libs/light/libxl_utils.c, `XEN_SCRIPT_DIR`).
const SCRIPT_DIR: &str = "/etc/xen/scripts/";

/// The longest name of a script, in bytes.
const NAME_MAX: usize = 64;

/// Why a `script` node names no script. The messages begin with the node's name.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// There is nothing in it.
    #[error("script: is empty")]
    Empty,
    /// It is too long.
    #[error("script: is longer than {NAME_MAX} bytes")]
    TooLong,
    /// It names a file elsewhere.
    #[error("script: is neither a name nor a file in {SCRIPT_DIR}")]
    Elsewhere,
    /// It holds what no script's name does: white space, control characters, anything but ASCII.
    #[error("script: holds characters that are not printable ASCII")]
    Characters,
}

/// The base name of a hotplug script, such as `block`: printable ASCII without white space or a slash.
///
/// No script is ever run by that name; it selects the plugin that stands in for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScriptName(String);

impl ScriptName {
    /// Reads a `script` node: a bare name, or a file right in `/etc/xen/scripts/`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let name = text.strip_prefix(SCRIPT_DIR).unwrap_or(text);
        if name.is_empty() {
            return Err(Error::Empty);
        }
        if name.len() > NAME_MAX {
            return Err(Error::TooLong);
        }
        if !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Characters);
        }
        if name.contains('/') || name == "." || name == ".." {
            return Err(Error::Elsewhere);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScriptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ScriptName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<ScriptName> for String {
    fn from(name: ScriptName) -> Self {
        name.0
    }
}
