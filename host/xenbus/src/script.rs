//! The `script` node, which names the hotplug script of the guest's configuration.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Directory of scripts that are named without one (tools/libs/light/libxl_utils.c, `XEN_SCRIPT_DIR`).
const SCRIPT_DIR: &str = "/etc/xen/scripts/";

/// Longest name of a script, in bytes.
const NAME_MAX: usize = 64;

/// Error of a `script` node that names no script. The messages begin with the node's name.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The node is empty.
    #[error("script: is empty")]
    Empty,
    /// The name is too long.
    #[error("script: is longer than {NAME_MAX} bytes")]
    TooLong,
    /// The node names a file in another directory.
    #[error("script: is neither a name nor a file in {SCRIPT_DIR}")]
    Elsewhere,
    /// The name has white space, control characters or non-ASCII characters.
    #[error("script: holds characters that are not printable ASCII")]
    Characters,
}

/// Base name of a hotplug script, such as `block`: printable ASCII without white space or a slash.
///
/// The daemon never runs a script by that name; it selects the plugin that replaces the script.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScriptName(String);

impl ScriptName {
    /// Parses a `script` node: a bare name, or a file right in `/etc/xen/scripts/`.
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

    /// Returns the name.
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
