//! Baseline of a host, by which a test checks at its end that nothing was lost and nothing is left over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Daemon, Namespace, TestHost, attached_below, kernel, namespace::output};
use crate::store::Store;

/// Parts of the host that a baseline covers.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Directory whose files' loop devices are covered.
    pub directory: &'a Path,
    /// Socket of xenstored.
    pub socket: PathBuf,
    /// Domain whose backends and device requests are covered.
    pub domain: u16,
    /// Namespace whose links, addresses, routes, rules and processes are covered.
    pub namespace: Option<&'a Namespace>,
    /// True if this process runs in a [`DebianRoot`](super::DebianRoot), which has `nft` and xenstored. Rules and
    /// watches are covered only there.
    pub in_debian: bool,
    /// Daemon whose descriptors, children and journal are covered.
    pub daemon: Option<&'a Daemon>,
}

/// State of a host by subject: a value for each key.
///
/// The subjects are loop devices on the test's files; links with their bridges, addresses and routes; nftables rules;
/// nodes of devices, and watches; processes in the namespace; the daemon's descriptors, children and journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline(BTreeMap<&'static str, Facts>);

type Facts = BTreeMap<String, String>;

/// Makes facts without values.
fn set(keys: impl IntoIterator<Item = String>) -> Facts {
    keys.into_iter().map(|key| (key, String::new())).collect()
}

impl Baseline {
    /// Takes the baseline of the current state.
    pub fn of(scope: &Scope<'_>) -> Result<Self> {
        let loops = attached_below(scope.directory)?.into_iter();
        let loops = loops.map(|one| (one.device.display().to_string(), one.backing));
        let mut all = BTreeMap::from([("loop", loops.collect())]);
        if let Some(namespace) = scope.namespace {
            let links = namespace.facts("address show")?;
            let links = || links.as_array().into_iter().flatten();
            all.insert("link", links().map(link).collect());
            all.insert("address", set(links().flat_map(addresses)));
            all.insert("route", set(routes(namespace)?));
            all.insert("process", processes(namespace, scope.daemon)?);
        }
        if let (Some(namespace), true) = (scope.namespace, scope.in_debian) {
            all.insert("rule", rules(namespace)?);
        }
        let mut store = Store::connect(&scope.socket)?;
        all.insert("node", nodes(&mut store, scope.domain)?);
        if scope.in_debian {
            all.insert("watch", watches(&mut store, &scope.socket)?);
        }
        if let Some(daemon) = scope.daemon {
            all.insert("descriptor", daemon.descriptors()?.into_iter().collect());
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid()))?;
            all.insert("child", set(children.split_whitespace().map(str::to_owned)));
            all.insert("record", set(records(daemon)));
        }
        Ok(Self(all))
    }

    /// Waits until the host is as it was. Fails with the difference after 10 s.
    pub fn assert_same(&self, host: &TestHost) -> Result<()> {
        self.assert(host, Self::clone)
    }

    /// Does the same as [`Baseline::assert_same`], but allows other numbers of loop devices.
    pub fn assert_alike(&self, host: &TestHost) -> Result<()> {
        self.assert(host, Self::unnumbered)
    }

    fn assert(&self, host: &TestHost, view: fn(&Self) -> Self) -> Result<()> {
        let difference = self.viewed_after(&host.scope(), Duration::from_secs(10), view)?;
        ensure!(
            difference.is_empty(),
            "not as before:\n{difference}{}",
            host.daemon_log()
        );
        Ok(())
    }

    /// Returns the baseline without the numbers of loop devices.
    fn unnumbered(&self) -> Self {
        let without = |text: &str| match text.strip_prefix("/dev/loop") {
            Some(number) if number.parse::<u32>().is_ok() => "/dev/loop*".to_owned(),
            _ if text.starts_with("7:") => "7:*".to_owned(),
            _ => text.to_owned(),
        };
        let facts = |facts: &Facts| {
            facts
                .iter()
                .map(|(key, value)| (without(key), without(value)))
                .collect()
        };
        Self(self.0.iter().map(|(about, all)| (*about, facts(all))).collect())
    }

    /// Waits until there is no difference, and returns the one that remains after `timeout`.
    pub fn difference_after(&self, scope: &Scope<'_>, timeout: Duration) -> Result<String> {
        self.viewed_after(scope, timeout, Self::clone)
    }

    fn viewed_after(&self, scope: &Scope<'_>, timeout: Duration, view: fn(&Self) -> Self) -> Result<String> {
        let until = Instant::now() + timeout;
        let before = view(self);
        loop {
            let difference = before.difference(&view(&Self::of(scope)?));
            if difference.is_empty() || Instant::now() > until {
                return Ok(difference);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns a line for each fact that was removed (`-`), added (`+`) or changed (`~`) since.
    fn difference(&self, now: &Self) -> String {
        let nothing = Facts::new();
        let mut text = String::new();
        let abouts: BTreeSet<_> = self.0.keys().chain(now.0.keys()).copied().collect();
        for about in abouts {
            let facts = |of: &'_ Self| of.0.get(about).unwrap_or(&nothing).clone();
            let (before, after) = (facts(self), facts(now));
            // A process that ended by itself, such as one of a player, is no loss.
            let gone = before
                .iter()
                .filter(|(key, _)| about != "process" && !after.contains_key(*key));
            let lines = gone.map(|(key, value)| format!("- {about}: {key} {value}"));
            let lines = lines.chain(after.iter().filter_map(|(key, value)| match before.get(key) {
                None => Some(format!("+ {about}: {key} {value}")),
                Some(before) if before != value => Some(format!("~ {about}: {key} {before} -> {value}")),
                Some(_) => None,
            }));
            for line in lines {
                let _ = writeln!(text, "{}", line.trim_end());
            }
        }
        text
    }
}

/// Returns a link's name and the settings that a daemon may change.
fn link(link: &Value) -> (String, String) {
    let up = link["flags"]
        .as_array()
        .is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
    let facts = format!(
        "{}, port of {}, mtu {}",
        if up { "up" } else { "down" },
        link["master"].as_str().unwrap_or("nothing"),
        link["mtu"]
    );
    (link["ifname"].as_str().unwrap_or_default().to_owned(), facts)
}

/// Returns the addresses of a link, except those that the kernel sets when the link has a carrier.
fn addresses(link: &Value) -> impl Iterator<Item = String> {
    let all = link["addr_info"].as_array().into_iter().flatten();
    let given = all.filter(|one| one["scope"] != "link");
    given.map(|one| {
        format!(
            "{}/{} on {}",
            one["local"].as_str().unwrap_or_default(),
            one["prefixlen"],
            link["ifname"]
        )
    })
}

/// Returns the routes that a program has added. The kernel's own go with their links and addresses.
fn routes(namespace: &Namespace) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in ["-4", "-6"] {
        let all = namespace.facts(&format!("{family} route show table all"))?;
        let made = all
            .as_array()
            .into_iter()
            .flatten()
            .filter(|route| route["protocol"] != "kernel");
        lines.extend(made.map(|route| format!("{} by {}, metric {}", route["dst"], route["dev"], route["metric"])));
    }
    Ok(lines)
}

/// Returns the processes in a namespace, except its holder and the daemon.
fn processes(namespace: &Namespace, daemon: Option<&Daemon>) -> Result<Facts> {
    let all = namespace.processes()?.into_iter();
    let others = all.filter(|(process, _)| daemon.is_none_or(|daemon| *process != daemon.pid()));
    Ok(others.map(|(process, name)| (process.to_string(), name)).collect())
}

fn rules(namespace: &Namespace) -> Result<Facts> {
    let rules = output(namespace.command("nft").args(["-n", "list", "ruleset"]))?;
    let lines = rules.lines().map(|line| line.trim().to_owned());
    Ok(set(lines.filter(|line| line.len() > 1)))
}

/// Returns the nodes of devices. Empty parents do not count, because libxl does not always remove them.
fn nodes(store: &mut Store, domain: u16) -> Result<Facts> {
    let mut nodes = store.tree(&format!("/local/domain/{domain}/backend"))?;
    nodes.extend(store.tree(&format!("/hotplug/domain/{domain}"))?);
    nodes.extend(store.tree("/libxl")?);
    nodes.retain(|path, value| !value.is_empty() || path.split('/').count() > 7);
    Ok(nodes.into_iter().collect())
}

/// Returns the watched paths with their counts. xenstored does not list its watches, but its memory report contains
/// them.
fn watches(store: &mut Store, socket: &Path) -> Result<Facts> {
    let report = socket.with_file_name("memory");
    // xenstored appends to an existing file.
    let _ = fs::remove_file(&report);
    store.control(&["memreport", &report.display().to_string()])?;
    // The report lists the path and the token of a watch below it.
    let mut all: Vec<Vec<String>> = Vec::new();
    let mut depth = None;
    for line in fs::read_to_string(&report)?.lines() {
        let (text, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        if text.starts_with("struct watch ") {
            depth = Some(indent);
            all.push(Vec::new());
        } else if depth.is_some_and(|depth| indent > depth) {
            let word = text.split_whitespace().next().map(str::to_owned);
            all.last_mut().into_iter().for_each(|watch| watch.extend(word.clone()));
        } else {
            depth = None;
        }
    }
    // The watches of the played kernel do not count, because a test may stop it.
    all.retain(|watch| !watch.iter().any(|word| word == kernel::TOKEN));
    let mut counts = BTreeMap::<String, usize>::new();
    // Tokens of libxenstore's clients look like paths. They distinguish watches too, so they are counted.
    for path in all.into_iter().flatten().filter(|word| word.starts_with(['/', '@'])) {
        *counts.entry(path).or_default() += 1;
    }
    Ok(counts
        .into_iter()
        .map(|(path, times)| (path, format!("x {times}")))
        .collect())
}

/// Returns the names of the daemon's records. They are read in the daemon's mount namespace, where the directory may be
/// mounted.
fn records(daemon: &Daemon) -> Vec<String> {
    let journal = daemon.config().run_directory().join("journal");
    let directory = format!("/proc/{}/root{}", daemon.pid(), journal.display());
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(".record")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_went_what_came_and_what_changed() {
        let facts = |all: &[(&str, &str)]| -> Facts {
            all.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let before = Baseline(BTreeMap::from([(
            "loop",
            facts(&[("a", "on x"), ("b", ""), ("c", "on x")]),
        )]));
        let after = Baseline(BTreeMap::from([
            ("link", facts(&[("vif3.0", "up")])),
            ("loop", facts(&[("b", ""), ("c", "on y")])),
        ]));
        assert_eq!(
            before.difference(&after),
            "+ link: vif3.0 up\n- loop: a on x\n~ loop: c on x -> on y\n"
        );
        assert_eq!(before.difference(&before), "");
    }
}
