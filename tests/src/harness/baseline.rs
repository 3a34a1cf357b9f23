//! What a machine has at one time, to find later that it has neither lost nor gained anything.

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

/// Where to look.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Loop devices on files below it count.
    pub directory: &'a Path,
    /// The store.
    pub socket: PathBuf,
    /// The domain whose backends, and requests for them, count.
    pub domain: u16,
    /// Its links count.
    pub namespace: Option<&'a Namespace>,
    /// Whether this process runs in a [`DebianRoot`](super::DebianRoot), which has `nft` and xenstored: elsewhere rules and
    /// watches do not count.
    pub in_debian: bool,
    /// Its descriptors, children and journal count.
    pub daemon: Option<&'a Daemon>,
}

/// What a machine has, by what it is about: a value for each key.
///
/// Loop devices on the test's files; links, whose ports they are, addresses and routes; nftables rules; nodes of devices
/// and watches; processes of the network; the daemon's descriptors, children and journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline(BTreeMap<&'static str, Facts>);

type Facts = BTreeMap<String, String>;

/// Facts that are what they are, without a value.
fn set(keys: impl IntoIterator<Item = String>) -> Facts {
    keys.into_iter().map(|key| (key, String::new())).collect()
}

impl Baseline {
    /// What there is now.
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

    /// Waits until the machine is as it was, and fails with the difference if it does not come to be so in time.
    pub fn assert_same(&self, machine: &TestHost) -> Result<()> {
        self.assert(machine, Self::clone)
    }

    /// The same, but that another loop device may have been free.
    pub fn assert_alike(&self, machine: &TestHost) -> Result<()> {
        self.assert(machine, Self::unnumbered)
    }

    fn assert(&self, machine: &TestHost, view: fn(&Self) -> Self) -> Result<()> {
        let difference = self.viewed_after(&machine.scope(), Duration::from_secs(10), view)?;
        ensure!(
            difference.is_empty(),
            "not as before:\n{difference}{}",
            machine.daemon_log()
        );
        Ok(())
    }

    /// What there is, but for the numbers of loop devices.
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

    /// The difference that is left after so long, or nothing as soon as there is none.
    pub fn difference_after(&self, scope: &Scope<'_>, patience: Duration) -> Result<String> {
        self.viewed_after(scope, patience, Self::clone)
    }

    fn viewed_after(&self, scope: &Scope<'_>, patience: Duration, view: fn(&Self) -> Self) -> Result<String> {
        let until = Instant::now() + patience;
        let before = view(self);
        loop {
            let difference = before.difference(&view(&Self::of(scope)?));
            if difference.is_empty() || Instant::now() > until {
                return Ok(difference);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A line for each thing that has gone (`-`), come (`+`) or changed (`~`) since.
    fn difference(&self, now: &Self) -> String {
        let nothing = Facts::new();
        let mut text = String::new();
        let abouts: BTreeSet<_> = self.0.keys().chain(now.0.keys()).copied().collect();
        for about in abouts {
            let facts = |of: &'_ Self| of.0.get(about).unwrap_or(&nothing).clone();
            let (before, after) = (facts(self), facts(now));
            // That a process has ended by itself, such as one of a player's, is no loss.
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

/// A link, with what is known to have been changed by a daemon.
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

/// The addresses of a link, but for those that it gives itself as soon as it has a carrier.
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

/// The routes that somebody has made: those that come with links and addresses go with them.
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

/// The processes in a network, but for who holds it and the daemon itself.
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

/// The nodes of devices. Empty parents may stay: libxl removes them, or does not.
fn nodes(store: &mut Store, domain: u16) -> Result<Facts> {
    let mut nodes = store.tree(&format!("/local/domain/{domain}/backend"))?;
    nodes.extend(store.tree(&format!("/hotplug/domain/{domain}"))?);
    nodes.extend(store.tree("/libxl")?);
    nodes.retain(|path, value| !value.is_empty() || path.split('/').count() > 7);
    Ok(nodes.into_iter().collect())
}

/// What is watched, and how often. xenstored does not list its watches, but it reports its memory, with what is in it.
fn watches(store: &mut Store, socket: &Path) -> Result<Facts> {
    let report = socket.with_file_name("memory");
    // xenstored appends to what is there.
    let _ = fs::remove_file(&report);
    store.control(&["memreport", &report.display().to_string()])?;
    // Below each watch its path and its token.
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
    // A test may stop the played kernel.
    all.retain(|watch| !watch.iter().any(|word| word == kernel::TOKEN));
    let mut counts = BTreeMap::<String, usize>::new();
    // Tokens of libxenstore's clients look like paths, and are as good to tell watches apart.
    for path in all.into_iter().flatten().filter(|word| word.starts_with(['/', '@'])) {
        *counts.entry(path).or_default() += 1;
    }
    Ok(counts
        .into_iter()
        .map(|(path, times)| (path, format!("x {times}")))
        .collect())
}

/// The names of the daemon's records, where the daemon has them: the directory may be mounted for it alone.
fn records(daemon: &Daemon) -> Vec<String> {
    let journal = daemon.config().run_directory().join("journal");
    let seen = format!("/proc/{}/root{}", daemon.pid(), journal.display());
    let entries = fs::read_dir(seen).into_iter().flatten().flatten();
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
