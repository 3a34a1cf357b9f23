//! Calls of helper programs as they are granted and kept in a journal.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A call of a helper that was granted: kept in a journal, it can be made when the grant is another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Command {
    /// The name it was granted under.
    pub helper: String,
    /// The program, an absolute path.
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

/// The variables that a hook finds in its environment.
pub type Variables = BTreeMap<String, String>;

/// Program that runs a hook with variables besides those that every helper has (coreutils).
const ENV: &str = "/usr/bin/env";

/// A call of a hook: it is the helper of its file's name.
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
