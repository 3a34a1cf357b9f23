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

use super::{Daemon, Machine, Namespace, Rig, attached_below, namespace::output};
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
    /// Where to find `nft`; without it, nftables rules are not looked at.
    pub rig: Option<&'a Rig>,
    /// Its descriptors, children and journal count.
    pub daemon: Option<&'a Daemon>,
}

/// Loop devices on the test's files, links, bridge ports, nftables rules, nodes of devices, the daemon's descriptors
/// and children, its journal: sets of lines, by what they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline(BTreeMap<&'static str, BTreeSet<String>>);

impl Baseline {
    /// What there is now.
    pub fn of(scope: &Scope<'_>) -> Result<Self> {
        let mut all = BTreeMap::new();
        let loops = attached_below(scope.directory)?;
        all.insert(
            "loop",
            loops
                .iter()
                .map(|one| format!("{} on {}", one.device.display(), one.backing))
                .collect(),
        );

        if let Some(namespace) = scope.namespace {
            let links = namespace.facts("link show")?;
            let links = links.as_array().into_iter().flatten();
            let lines = links.map(|link| format!("{} port of {}, mtu {}", link["ifname"], link["master"], link["mtu"]));
            all.insert("link", lines.collect());
            if let Some(rig) = scope.rig {
                let mut nft = namespace.command("nft");
                rig.equip(&mut nft);
                let rules = output(nft.args(["-n", "list", "ruleset"]))?;
                let lines = rules.lines().map(|line| line.trim().to_owned());
                all.insert("rule", lines.filter(|line| line.len() > 1).collect());
            }
        }

        let mut store = Store::connect(&scope.socket)?;
        let mut nodes = store.tree(&format!("/local/domain/{}/backend", scope.domain))?;
        nodes.extend(store.tree(&format!("/hotplug/domain/{}", scope.domain))?);
        nodes.extend(store.tree("/libxl")?);
        // Empty parents may stay: libxl removes them, or does not.
        nodes.retain(|path, value| !value.is_empty() || path.split('/').count() > 7);
        all.insert(
            "node",
            nodes
                .into_iter()
                .map(|(path, value)| format!("{path} = {value}"))
                .collect(),
        );

        if let Some(daemon) = scope.daemon {
            all.insert("descriptor", daemon.descriptors()?);
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid()))?;
            all.insert("child", children.split_whitespace().map(str::to_owned).collect());
            let journal = fs::read_dir(daemon.config().run_directory().join("journal"));
            let records = journal.into_iter().flatten().flatten().map(|entry| entry.file_name());
            all.insert(
                "record",
                records.map(|name| name.to_string_lossy().into_owned()).collect(),
            );
        }
        Ok(Self(all))
    }

    /// Waits until the machine is as it was, and fails with the difference if it does not come to be so in time.
    pub fn assert_same(&self, machine: &Machine) -> Result<()> {
        let difference = self.difference_after(&machine.scope(), Duration::from_secs(10))?;
        ensure!(
            difference.is_empty(),
            "not as before:\n{difference}{}",
            machine.daemon_log()
        );
        Ok(())
    }

    /// The difference that is left after so long, or nothing as soon as there is none.
    pub fn difference_after(&self, scope: &Scope<'_>, patience: Duration) -> Result<String> {
        let until = Instant::now() + patience;
        loop {
            let difference = self.difference(&Self::of(scope)?);
            if difference.is_empty() || Instant::now() > until {
                return Ok(difference);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A line for each thing that has gone (`-`) or come (`+`) since.
    fn difference(&self, now: &Self) -> String {
        let nothing = BTreeSet::new();
        let mut text = String::new();
        let about: BTreeSet<_> = self.0.keys().chain(now.0.keys()).collect();
        for about in about {
            let (before, after) = (
                self.0.get(about).unwrap_or(&nothing),
                now.0.get(about).unwrap_or(&nothing),
            );
            for (sign, lines) in [('-', before.difference(after)), ('+', after.difference(before))] {
                for line in lines {
                    let _ = writeln!(text, "{sign} {about}: {line}");
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_went_and_what_came() {
        let before = Baseline(BTreeMap::from([(
            "loop",
            BTreeSet::from(["a".to_owned(), "b".to_owned()]),
        )]));
        let after = Baseline(BTreeMap::from([
            ("link", BTreeSet::from(["vif3.0".to_owned()])),
            ("loop", BTreeSet::from(["b".to_owned()])),
        ]));
        assert_eq!(before.difference(&after), "+ link: vif3.0\n- loop: a\n");
        assert_eq!(before.difference(&before), "");
    }
}
