//! What the operator allows a plugin: proofs that the system's calls take, and that nothing else can make.
//!
//! A grant is made from the operator's configuration, with the [`Operator`] token that stands for it. A test over the
//! sources keeps the places that name `Operator::of_configuration` few: the daemon's configuration, and tests.

use std::path::PathBuf;

/// Stands for the operator. Whoever holds it may make grants.
#[derive(Debug)]
pub struct Operator(());

impl Operator {
    /// The operator, as the author of a configuration file that only root can write.
    pub fn of_configuration() -> Self {
        Self(())
    }
}

/// How something may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Access {
    /// Reads only: `"ro"` in the configuration.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Reads and writes: `"rw"`.
    #[serde(rename = "rw")]
    ReadWrite,
}

/// A file or directory, and everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// An absolute path.
    pub path: PathBuf,
    /// How it may be used.
    pub access: Access,
}

/// A name, or the beginning of one with `*` at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(pub String);

/// A helper program and what it may be started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperRule {
    /// The name by which plugins call it.
    pub name: String,
    /// The program, an absolute path.
    pub path: PathBuf,
    /// A pattern for each argument, `*` standing for any run of characters but `/` and control characters. The last one
    /// may be `...`: any number of arguments more, each like the pattern before it.
    pub args: Vec<String>,
}

/// Files and block devices within these rules, and loop devices on them.
#[derive(Clone, Debug)]
pub struct BlockGrant {
    rules: Vec<PathRule>,
    loops: bool,
}

/// Bridges of these names, and the device's own link.
#[derive(Clone, Debug)]
pub struct NetworkGrant {
    bridges: Vec<NamePattern>,
}

/// Rules for the device's own link.
#[derive(Clone, Debug)]
pub struct FirewallGrant(());

/// These helper programs.
#[derive(Clone, Debug)]
pub struct ProcessGrant {
    helpers: Vec<HelperRule>,
}
