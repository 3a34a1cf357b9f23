//! Grants of the operator to a plugin. The platform's calls take them, and only the configuration can make them.
//!
//! The constructors take an [`Operator`] token. A test over the sources allows `Operator::of_configuration` in the
//! daemon's configuration and in tests only.

use std::path::{Path, PathBuf};

use crate::{Error, address::Prefix, command::Command};

/// Token of the operator, which permits its holder to make grants.
#[derive(Debug)]
pub struct Operator(());

impl Operator {
    /// Returns the token, for the reader of a configuration file that only root can write.
    pub fn of_configuration() -> Self {
        Self(())
    }
}

/// Access to a file or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Access {
    /// Read access: `"ro"` in the configuration.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Read and write access: `"rw"`.
    #[serde(rename = "rw")]
    ReadWrite,
}

/// A file, or a directory with everything below it. A `*` in the last component of the path matches any name, as in
/// `/dev/nbd*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Absolute path.
    pub path: PathBuf,
    /// Access that the rule allows.
    pub access: Access,
}

impl PathRule {
    /// Returns the last component of the path if it is a pattern.
    fn pattern(&self) -> Option<&str> {
        self.path.file_name()?.to_str().filter(|name| name.contains('*'))
    }

    /// Returns the directory to resolve paths in. The operator is responsible for links in its own path.
    pub(crate) fn directory(&self) -> &Path {
        match (self.pattern(), self.path.parent()) {
            (Some(_), Some(parent)) => parent,
            _ => &self.path,
        }
    }

    /// Returns the rest of a path below `directory`, which is a name of the rule's directory, if the rule covers the
    /// path.
    pub(crate) fn rest<'p>(&self, directory: &Path, path: &'p Path) -> Option<&'p Path> {
        let rest = path.strip_prefix(directory).ok()?;
        let Some(pattern) = self.pattern() else {
            return Some(rest);
        };
        let first = rest.components().next()?.as_os_str().to_str()?;
        text_matches(pattern, first).then_some(rest)
    }
}

/// A name, or a prefix of names that ends in `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(pub String);

impl NamePattern {
    /// Tells whether the pattern matches a name.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.0,
        }
    }
}

/// A helper program and the arguments that it may be started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperRule {
    /// Name by which plugins call it.
    pub name: String,
    /// Absolute path of the program.
    pub path: PathBuf,
    /// A pattern for each argument, in which `*` matches any run of characters but `/` and control characters. The last
    /// one may be `...`, for any number of further arguments that match the pattern before it. A pattern that begins
    /// with `*` matches no argument that begins with `-`, so that a value cannot become an option. No `*` matches the
    /// path component `..`.
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

/// Grant of files and block devices, and of loop devices on them.
///
/// Links in a rule's own path are followed, as the operator wrote it. The target of a link below it must be within a
/// rule as well. The most specific rule for a path counts, so that a directory of images may contain a read-only one.
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

    /// Returns the most specific rule for a path, and the rest of the path below the rule's.
    pub(crate) fn rule<'g, 'p>(&'g self, path: &'p Path) -> Option<(&'g PathRule, &'p Path)> {
        self.rules
            .iter()
            .filter_map(|rule| rule.rest(rule.directory(), path).map(|rest| (rule, rest)))
            .max_by_key(|(rule, _)| (rule.path.components().count(), rule.pattern().is_none()))
    }

    pub(crate) fn rules(&self) -> &[PathRule] {
        &self.rules
    }

    /// Returns an error unless loop devices are granted.
    pub(crate) fn permit_loops(&self) -> Result<(), Error> {
        if self.loops {
            Ok(())
        } else {
            Err(Error::Denied("loop devices are not granted".into()))
        }
    }
}

/// Grant of the device's own link, of bridges for it, of prefixes to route through it, and of links whose addresses may
/// be read.
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

    /// Adds routes to these prefixes and to prefixes within them.
    #[must_use]
    pub fn with_routes(self, _: &Operator, routes: Vec<Prefix>) -> Self {
        Self { routes, ..self }
    }

    /// Adds read access to the addresses of links by name.
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

/// Grant of firewall rules for the device's own link.
#[derive(Clone, Debug)]
pub struct FirewallGrant(());

impl FirewallGrant {
    /// Grants rules.
    pub fn new(_: &Operator) -> Self {
        Self(())
    }
}

/// Grant of the hooks in a directory: programs run for each vif, like `/etc/xen/scripts/vif-post.d/*.hook`.
#[derive(Clone, Debug)]
pub struct HookGrant {
    folder: PathBuf,
    process: ProcessGrant,
}

impl HookGrant {
    /// Grants the programs that are in the directory when hooks run.
    pub fn new(operator: &Operator, folder: PathBuf) -> Self {
        Self {
            folder,
            process: ProcessGrant::to_release(operator),
        }
    }

    /// Returns the grant to run the commands that [`hook`](crate::process::hook) makes.
    pub fn process(&self) -> &ProcessGrant {
        &self.process
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Grant of helper programs.
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

    /// Grants the commands that a journal records, and no others: they were granted when they were recorded.
    pub fn to_release(_: &Operator) -> Self {
        Self {
            helpers: Vec::new(),
            recorded: true,
        }
    }

    /// Returns the call of a helper, or an error if it is not granted.
    pub fn command(&self, helper: &str, arguments: &[String]) -> Result<Command, Error> {
        Ok(Command {
            helper: helper.to_owned(),
            program: self.program(helper, arguments)?.to_owned(),
            arguments: arguments.to_owned(),
        })
    }

    /// Returns an error unless recorded commands are granted.
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

    /// Returns the program of a helper, or an error if no rule permits these arguments. Several rules may name the same
    /// helper.
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

/// Tells whether a text matches the pattern, in which `*` matches any run of characters but `/`.
fn text_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|beginning| text.strip_prefix(beginning)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    // Each star matches as little as possible. The last part has to be the end of the text.
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
