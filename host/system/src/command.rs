//! Granted calls of helper programs, as a journal records them.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A granted call of a helper. A journal records it, so that it can be made after the grant has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Command {
    /// Name of the helper in the grant.
    pub helper: String,
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Arguments of the program.
    pub arguments: Vec<String>,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.helper)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument}"))
    }
}

/// Environment variables of a hook.
pub type Variables = BTreeMap<String, String>;

/// Program that runs a hook with variables besides those that every helper has (coreutils).
const ENV: &str = "/usr/bin/env";

/// Returns the call of a hook, with its file name as the name of the helper.
pub fn hook(program: &Path, variables: &Variables) -> Command {
    let mut arguments: Vec<String> = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    arguments.push(program.display().to_string());
    let name = program.file_name().unwrap_or_default();
    Command {
        helper: name.to_string_lossy().into_owned(),
        program: ENV.into(),
        arguments,
    }
}
