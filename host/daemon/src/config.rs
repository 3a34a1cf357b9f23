//! The operator's configuration: read, checked to the last key, and resolved.

mod error;
mod raw;

use std::{
    collections::HashMap,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned as Placed;
use xenplug_runtime::{Grants, Limits, PluginSpec};
use xenplug_system::{
    grant::{
        BlockGrant, FirewallGrant, HelperRule, HookGrant, NamePattern, NetworkGrant, Operator, PathRule, ProcessGrant,
    },
    network::Prefix,
};
use xenplug_xenbus::{Kind, Mode};

pub(crate) use error::ConfigError;
use error::Source;

/// The resolved configuration.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) mode: Mode,
    pub(crate) paths: Paths,
    pub(crate) plugins: Vec<Plugin>,
    pub(crate) backoff: BackoffTimes,
    /// The authority to release what any plugin acquired.
    pub(crate) release: Grants,
}

/// The daemon's folders.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) plugins: PathBuf,
    pub(crate) cache: PathBuf,
    /// The control socket and the journal.
    pub(crate) run: PathBuf,
}

/// For how long a plugin that failed a guest does not run for it: the configuration's `[backoff]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackoffTimes {
    /// After the first failure; then twice as long each time.
    pub(crate) first: Duration,
    /// At most.
    pub(crate) longest: Duration,
}

impl Default for BackoffTimes {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(600),
        }
    }
}

/// A plugin's table.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) spec: PluginSpec,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) scripts: Vec<String>,
    /// The file and line that name its component, for messages: `FILE:LINE`.
    pub(crate) location: String,
}

impl Config {
    /// Reads a file.
    pub(crate) fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(file).map_err(|source| ConfigError::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(&Source { file, text: &text })
    }

    fn parse(source: &Source<'_>) -> Result<Self, ConfigError> {
        let raw: raw::Config = toml::from_str(source.text).map_err(|error| source.toml(&error))?;
        let paths = Paths {
            plugins: raw.paths.plugins.unwrap_or_else(|| "/usr/lib/xenplug/plugins".into()),
            cache: raw.paths.cache.unwrap_or_else(|| "/var/cache/xenplug".into()),
            run: raw.paths.run.unwrap_or_else(|| "/run/xenplug".into()),
        };
        // The file speaks for the operator: grants are made from it here, and nowhere else.
        let operator = Operator::of_configuration();
        if raw.plugin.is_empty() {
            return Err(source.whole("it names no plugin", "add a table such as [plugin.phy]"));
        }
        let mut plugins: Vec<Plugin> = Vec::with_capacity(raw.plugin.len());
        for (name, plugin) in raw.plugin {
            let location = format!(
                "{}:{}",
                source.file.display(),
                source.line(plugin.component.span().start)
            );
            let resolved = resolve(source, &operator, &paths, name, plugin, location)?;
            for (script, kind) in resolved
                .scripts
                .iter()
                .flat_map(|s| resolved.kinds.iter().map(move |k| (s, k)))
            {
                if let Some(other) = plugins
                    .iter()
                    .find(|p| p.scripts.contains(script) && p.kinds.contains(kind))
                {
                    return Err(source.whole(
                        &format!(
                            "plugin.{} and plugin.{} both serve script \"{script}\" of kind \"{kind}\"",
                            other.spec.name, resolved.spec.name
                        ),
                        "remove it from one of them",
                    ));
                }
            }
            plugins.push(resolved);
        }
        Ok(Self {
            mode: raw.mode.into(),
            paths,
            plugins,
            backoff: backoff(source, raw.backoff)?,
            release: Grants::to_release(&operator),
        })
    }
}

fn resolve(
    source: &Source<'_>,
    operator: &Operator,
    paths: &Paths,
    name: String,
    raw: raw::Plugin,
    location: String,
) -> Result<Plugin, ConfigError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return Err(source.at(
            &raw.component,
            &format!("{name:?} is not a name for a plugin"),
            "use letters, digits, '-', '_' and '.'",
        ));
    }
    if raw.kinds.get_ref().is_empty() {
        return Err(source.at(
            &raw.kinds,
            "kinds is empty",
            "name the kinds of backend it serves, such as [\"vbd\"]",
        ));
    }
    let kinds = raw
        .kinds
        .get_ref()
        .iter()
        .map(|kind| {
            kind.parse().map_err(|_| {
                source.at(
                    &raw.kinds,
                    &format!("{kind:?} is not a kind of backend"),
                    "expected one such as \"vbd\"",
                )
            })
        })
        .collect::<Result<_, _>>()?;
    if let Some(script) = raw
        .scripts
        .get_ref()
        .iter()
        .find(|script| script.is_empty() || script.contains('/'))
    {
        return Err(source.at(
            &raw.scripts,
            &format!("{script:?} is not the name of a script"),
            "give the name alone, such as \"block\"",
        ));
    }
    Ok(Plugin {
        kinds,
        scripts: raw.scripts.into_inner(),
        location,
        spec: PluginSpec {
            component: paths.plugins.join(raw.component.get_ref()),
            grants: grants(source, operator, &name, raw.grant)?,
            limits: limits(source, raw.limits)?,
            config: flatten(raw.config),
            name,
        },
    })
}

fn grants(source: &Source<'_>, operator: &Operator, name: &str, raw: raw::Grant) -> Result<Grants, ConfigError> {
    let loops = raw.r#loop.as_ref().is_some_and(|granted| *granted.get_ref());
    let block = match raw.block {
        Some(rules) => {
            let rules = rules
                .into_iter()
                .map(|rule| absolute(source, rule))
                .collect::<Result<_, _>>()?;
            Some(BlockGrant::new(operator, rules, loops))
        }
        None => match raw.r#loop {
            Some(granted) if *granted.get_ref() => {
                return Err(source.at(
                    &granted,
                    &format!("plugin.{name} is granted loop devices, but no path to attach them to"),
                    "add block = [{ path = \"/var/lib/xen/images\", access = \"rw\" }]",
                ));
            }
            _ => None,
        },
    };
    let process = raw
        .process
        .map(|helpers| {
            let rules = helpers
                .into_iter()
                .map(|helper| {
                    if !helper.path.get_ref().is_absolute() {
                        return Err(source.at(&helper.path, "path is not absolute", "give the program's full path"));
                    }
                    Ok(HelperRule {
                        name: helper.name,
                        path: helper.path.into_inner(),
                        args: helper.args,
                    })
                })
                .collect::<Result<_, _>>()?;
            Ok(ProcessGrant::new(operator, rules))
        })
        .transpose()?;
    Ok(Grants {
        block,
        network: network(source, operator, raw.bridges, raw.routes, raw.uplinks)?,
        firewall: raw.firewall.then(|| FirewallGrant::new(operator)),
        process,
        guest: raw.guest,
        hooks: raw
            .hooks
            .map(|folder| Ok(HookGrant::new(operator, full_path(source, folder, "hooks")?)))
            .transpose()?,
    })
}

fn network(
    source: &Source<'_>,
    operator: &Operator,
    bridges: Option<Vec<String>>,
    routes: Option<Placed<Vec<String>>>,
    uplinks: Option<Vec<String>>,
) -> Result<Option<NetworkGrant>, ConfigError> {
    if bridges.is_none() && routes.is_none() && uplinks.is_none() {
        return Ok(None);
    }
    let patterns = |names: Option<Vec<String>>| names.into_iter().flatten().map(NamePattern).collect();
    let mut prefixes = Vec::new();
    if let Some(routes) = routes {
        for text in routes.get_ref() {
            prefixes.push(
                text.parse::<Prefix>().map_err(|error| {
                    source.at(&routes, &error.to_string(), "expected prefixes such as \"10.0.0.0/8\"")
                })?,
            );
        }
    }
    Ok(Some(
        NetworkGrant::new(operator, patterns(bridges))
            .with_routes(operator, prefixes)
            .with_uplinks(operator, patterns(uplinks)),
    ))
}

fn full_path(source: &Source<'_>, path: Placed<PathBuf>, key: &str) -> Result<PathBuf, ConfigError> {
    match path.get_ref().is_absolute() {
        true => Ok(path.into_inner()),
        false => Err(source.at(&path, &format!("{key} is not absolute"), "begin it with /")),
    }
}

fn absolute(source: &Source<'_>, rule: raw::PathRule) -> Result<PathRule, ConfigError> {
    let path = rule.path.get_ref();
    if !path.is_absolute() {
        return Err(source.at(&rule.path, "path is not absolute", "begin it with /"));
    }
    if path.parent().is_some_and(|above| above.to_string_lossy().contains('*')) {
        return Err(source.at(
            &rule.path,
            "path has a * before its last component",
            "grant each directory by its name, such as \"/dev/disk/by-path/ip-*\"",
        ));
    }
    Ok(PathRule {
        path: rule.path.into_inner(),
        access: rule.access,
    })
}

fn limits(source: &Source<'_>, raw: raw::Limits) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    if let Some(memory) = raw.memory {
        let size: bytesize::ByteSize = memory.get_ref().parse().map_err(|_| {
            source.at(
                &memory,
                &format!("{:?} is not a size", memory.get_ref()),
                "expected one such as \"16MiB\"",
            )
        })?;
        limits.memory = usize::try_from(size.as_u64())
            .ok()
            .filter(|bytes| (64 << 10..=Limits::MEMORY_MAX).contains(bytes))
            .ok_or_else(|| {
                source.at(
                    &memory,
                    &format!("{size} is outside what a plugin can have"),
                    &format!("choose from 64KiB to {}MiB", Limits::MEMORY_MAX >> 20),
                )
            })?;
    }
    if let Some(deadline) = raw.deadline {
        let range = Duration::from_millis(100)..=Duration::from_secs(600);
        limits.deadline = time(source, &deadline, "deadline", range)?;
    }
    if let Some(calls) = raw.calls {
        limits.calls = calls;
    }
    if let Some(lines) = raw.log_lines {
        limits.log_lines = lines;
    }
    Ok(limits)
}

fn backoff(source: &Source<'_>, raw: raw::Backoff) -> Result<BackoffTimes, ConfigError> {
    let default = BackoffTimes::default();
    let range = Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
    let time = |value: Option<Placed<String>>, key: &str, default: Duration| match value {
        Some(value) => time(source, &value, key, range.clone()),
        None => Ok(default),
    };
    Ok(BackoffTimes {
        first: time(raw.first, "first", default.first)?,
        longest: time(raw.longest, "longest", default.longest)?,
    })
}

/// Parses a time within bounds.
fn time(
    source: &Source<'_>,
    text: &Placed<String>,
    key: &str,
    range: RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    let parsed = humantime::parse_duration(text.get_ref()).ok();
    parsed.filter(|time| range.contains(time)).ok_or_else(|| {
        source.at(
            text,
            &format!("{:?} is not a {key}", text.get_ref()),
            &format!(
                "choose from \"{}\" to \"{}\"",
                humantime::format_duration(*range.start()),
                humantime::format_duration(*range.end())
            ),
        )
    })
}

/// Flattens a table to text: `a.b` for the key `b` in the table `a`, arrays with a space between their values.
fn flatten(table: toml::Table) -> HashMap<String, String> {
    fn text(value: &toml::Value) -> String {
        match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(" "),
            other => other.to_string(),
        }
    }
    fn walk(prefix: &str, table: &toml::Table, into: &mut HashMap<String, String>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => walk(&format!("{prefix}{key}."), inner, into),
                value => {
                    into.insert(format!("{prefix}{key}"), text(value));
                }
            }
        }
    }
    let mut flat = HashMap::new();
    walk("", &table, &mut flat);
    flat
}

#[cfg(test)]
mod tests;
