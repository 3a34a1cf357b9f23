//! Grants of the operator to a plugin: proofs that the platform's calls take, and that only the configuration can make.
//!
//! A grant is made from the operator's configuration, with the [`Operator`] token that stands for it. A test over the
//! sources keeps the places that name `Operator::of_configuration` few: the daemon's configuration, and tests.

use std::path::{Path, PathBuf};

use crate::{Error, address::Prefix, command::Command};

/// Stands for the operator. Whoever holds it may make grants.
#[derive(Debug)]
pub struct Operator(());

impl Operator {
    /// The operator, as the author of a configuration file that only root can write.
    pub fn of_configuration() -> Self {
        Self(())
    }
}

/// Access to a file or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Access {
    /// Reads only: `"ro"` in the configuration.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Reads and writes: `"rw"`.
    #[serde(rename = "rw")]
    ReadWrite,
}

/// A file or directory, and everything below it; with a `*` in the path's last component, all whose names fit, such as
/// `/dev/nbd*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// An absolute path.
    pub path: PathBuf,
    /// Access that the rule allows.
    pub access: Access,
}

impl PathRule {
    /// Pattern that the last component of the path has to match, if it is one.
    fn pattern(&self) -> Option<&str> {
        self.path.file_name()?.to_str().filter(|name| name.contains('*'))
    }

    /// The directory in which to look: links on the way to it are the operator's.
    pub(crate) fn directory(&self) -> &Path {
        match (self.pattern(), self.path.parent()) {
            (Some(_), Some(parent)) => parent,
            _ => &self.path,
        }
    }

    /// Rest of a path below the rule's directory, of which `directory` is a name, if the rule covers the path.
    pub(crate) fn rest<'p>(&self, directory: &Path, path: &'p Path) -> Option<&'p Path> {
        let rest = path.strip_prefix(directory).ok()?;
        let Some(pattern) = self.pattern() else {
            return Some(rest);
        };
        let first = rest.components().next()?.as_os_str().to_str()?;
        text_matches(pattern, first).then_some(rest)
    }
}

/// A name, or the beginning of one with `*` at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(pub String);

impl NamePattern {
    /// Tells whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.0,
        }
    }
}

/// A helper program and what it may be started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperRule {
    /// The name by which plugins call it.
    pub name: String,
    /// The program, an absolute path.
    pub path: PathBuf,
    /// A pattern for each argument, `*` standing for any run of characters but `/` and control characters. The last one
    /// may be `...`: any number of arguments more, each like the pattern before it. A pattern that begins with `*` does
    /// not match an argument that begins with `-`: what was granted as a value cannot become an option. No `*` stands
    /// for the path component `..`.
    pub args: Vec<String>,
}

impl HelperRule {
    /// Tells whether the helper may be started with these arguments.
    fn permits(&self, arguments: &[String]) -> bool {
        let (patterns, more) = match self.args.split_last() {
            Some((last, patterns)) if last == "..." => (patterns, patterns.last()),
            _ => (self.args.as_slice(), None),
        };
        let fits = match more {
            Some(_) => arguments.len() >= patterns.len(),
            None => arguments.len() == patterns.len(),
        };
        fits && arguments.iter().enumerate().all(|(at, argument)| {
            patterns
                .get(at)
                .or(more)
                .is_some_and(|pattern| argument_matches(pattern, argument))
        })
    }
}

/// Files and block devices within these rules, and loop devices on them.
///
/// Links in a rule's own path are followed, as the operator wrote it; what a link within it leads to must be within a
/// rule as well. Of several rules for a path the most specific one counts, so that a directory of images may hold a
/// read-only one.
#[derive(Clone, Debug)]
pub struct BlockGrant {
    rules: Vec<PathRule>,
    loops: bool,
}

impl BlockGrant {
    /// Grants paths, and with `loops` loop devices on the files among them.
    pub fn new(_: &Operator, rules: Vec<PathRule>, loops: bool) -> Self {
        Self { rules, loops }
    }

    /// The most specific rule for a path, and the rest of the path below the rule's.
    pub(crate) fn rule<'g, 'p>(&'g self, path: &'p Path) -> Option<(&'g PathRule, &'p Path)> {
        self.rules
            .iter()
            .filter_map(|rule| rule.rest(rule.directory(), path).map(|rest| (rule, rest)))
            .max_by_key(|(rule, _)| (rule.path.components().count(), rule.pattern().is_none()))
    }

    /// All rules.
    pub(crate) fn rules(&self) -> &[PathRule] {
        &self.rules
    }

    /// An error unless loop devices are granted.
    pub(crate) fn permit_loops(&self) -> Result<(), Error> {
        if self.loops {
            Ok(())
        } else {
            Err(Error::Denied("loop devices are not granted".into()))
        }
    }
}

/// The device's own link; bridges of these names to put it on, prefixes to route through it, and links whose addresses
/// may be read.
#[derive(Clone, Debug)]
pub struct NetworkGrant {
    bridges: Vec<NamePattern>,
    routes: Vec<Prefix>,
    uplinks: Vec<NamePattern>,
}

impl NetworkGrant {
    /// Grants bridges by name.
    pub fn new(_: &Operator, bridges: Vec<NamePattern>) -> Self {
        Self {
            bridges,
            routes: Vec::new(),
            uplinks: Vec::new(),
        }
    }

    /// Grants routes to these prefixes and to what is within them, too.
    #[must_use]
    pub fn with_routes(self, _: &Operator, routes: Vec<Prefix>) -> Self {
        Self { routes, ..self }
    }

    /// Grants a look at the addresses of links by name, too.
    #[must_use]
    pub fn with_uplinks(self, _: &Operator, uplinks: Vec<NamePattern>) -> Self {
        Self { uplinks, ..self }
    }

    /// Tells whether the bridge of that name is granted.
    pub fn permits(&self, bridge: &str) -> bool {
        self.bridges.iter().any(|pattern| pattern.matches(bridge))
    }

    /// Tells whether a route to that prefix is granted.
    pub(crate) fn permits_route(&self, to: Prefix) -> bool {
        self.routes
            .iter()
            .any(|granted| granted.length <= to.length && granted.contains(to.address))
    }

    /// Tells whether the addresses of the link of that name may be read.
    pub(crate) fn permits_uplink(&self, link: &str) -> bool {
        self.uplinks.iter().any(|pattern| pattern.matches(link))
    }
}

/// Rules for the device's own link.
#[derive(Clone, Debug)]
pub struct FirewallGrant(());

impl FirewallGrant {
    /// Grants rules.
    pub fn new(_: &Operator) -> Self {
        Self(())
    }
}

/// The hooks in a folder: programs that are run for each vif, as `/etc/xen/scripts/vif-post.d/*.hook` are.
#[derive(Clone, Debug)]
pub struct HookGrant {
    folder: PathBuf,
    process: ProcessGrant,
}

impl HookGrant {
    /// Grants what the folder holds when a hook is run.
    pub fn new(operator: &Operator, folder: PathBuf) -> Self {
        Self {
            folder,
            process: ProcessGrant::to_release(operator),
        }
    }

    /// The authority to run what [`hook`](crate::process::hook) makes of them.
    pub fn process(&self) -> &ProcessGrant {
        &self.process
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// These helper programs.
#[derive(Clone, Debug)]
pub struct ProcessGrant {
    helpers: Vec<HelperRule>,
    recorded: bool,
}

impl ProcessGrant {
    /// Grants helpers.
    pub fn new(_: &Operator, helpers: Vec<HelperRule>) -> Self {
        Self {
            helpers,
            recorded: false,
        }
    }

    /// Grants no helper but those that a journal names, as they were granted once.
    pub fn to_release(_: &Operator) -> Self {
        Self {
            helpers: Vec::new(),
            recorded: true,
        }
    }

    /// A call of a helper, if it is granted.
    pub fn command(&self, helper: &str, arguments: &[String]) -> Result<Command, Error> {
        Ok(Command {
            helper: helper.to_owned(),
            program: self.program(helper, arguments)?.to_owned(),
            arguments: arguments.to_owned(),
        })
    }

    /// An error unless what was granted once is.
    pub(crate) fn permit_recorded(&self, command: &Command) -> Result<(), Error> {
        if self.recorded {
            Ok(())
        } else {
            Err(Error::Denied(format!(
                "the helper {:?} is not granted as a journal has it",
                command.helper
            )))
        }
    }

    /// The program that a helper's name stands for, if it may be started with these arguments. Several rules may name
    /// the same helper.
    pub(crate) fn program(&self, helper: &str, arguments: &[String]) -> Result<&Path, Error> {
        let mut rules = self.helpers.iter().filter(|rule| rule.name == helper).peekable();
        if rules.peek().is_none() {
            return Err(Error::Denied(format!("the helper {helper:?} is not granted")));
        }
        rules
            .find(|rule| rule.permits(arguments))
            .map(|rule| rule.path.as_path())
            .ok_or_else(|| Error::Denied(format!("the helper {helper:?} is not granted with these arguments")))
    }
}

/// Tells whether an argument matches the pattern.
fn argument_matches(pattern: &str, argument: &str) -> bool {
    let climbs = |text: &str| text.split('/').any(|component| component == "..");
    if argument.chars().any(char::is_control)
        || (pattern.starts_with('*') && argument.starts_with('-'))
        || (climbs(argument) && !climbs(pattern))
    {
        return false;
    }
    text_matches(pattern, argument)
}

/// Tells whether a text matches the pattern, in which `*` stands for any run of characters but `/`.
fn text_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|beginning| text.strip_prefix(beginning)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    // Each star takes as little as it can; the last part has to be the end.
    while let Some(part) = parts.next() {
        let at = if parts.peek().is_none() {
            rest.len().checked_sub(part.len())
        } else {
            rest.find(part)
        };
        let Some((run, after)) = at.and_then(|at| rest.split_at_checked(at)) else {
            return false;
        };
        let Some(after) = after.strip_prefix(part) else {
            return false;
        };
        if run.contains('/') {
            return false;
        }
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests;
