//! Plugins that keep failing: each one's conduct, told as it changes, and what an operator sees and does about it.

mod backoff;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tracing::{error, info};
use xenplug_control as answer;
use xenplug_runtime::{Fault, Plugin};

pub(crate) use backoff::Rules;
use backoff::{FailureHistory, Permission, Told};

use crate::{context::Plugins, metrics::Metrics};

/// The conduct of all plugins. It is not kept over a restart of the daemon: an operator's restart is a trial, too.
#[derive(Default)]
pub(crate) struct Quarantines(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    rules: Rules,
    /// By name.
    plugins: BTreeMap<String, Kept>,
}

struct Kept {
    /// Of which component the conduct is.
    component: String,
    conduct: FailureHistory,
}

/// A handler that may run, to tell how it ended.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    guest: String,
    began: Instant,
}

/// What keeps a handler from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It may run then.
    Pause(Instant),
    /// It may not, for this reason.
    Quarantine(String),
}

impl Quarantines {
    /// For these plugins, of which nothing is known.
    pub(crate) fn of(plugins: &Plugins) -> Self {
        let quarantines = Self::default();
        quarantines.reconfigure(plugins);
        quarantines
    }

    /// Takes other plugins and rules. A component that is another now has a clean record.
    pub(crate) fn reconfigure(&self, plugins: &Plugins) {
        let mut inner = self.inner();
        let mut before = std::mem::take(&mut inner.plugins);
        inner.rules = plugins.quarantine.clone();
        for plugin in plugins.serving.iter().map(|serving| &serving.plugin) {
            let component = plugin.component().to_owned();
            let kept = before.remove(plugin.name()).filter(|kept| kept.component == component);
            let conduct = kept.map(|kept| kept.conduct).unwrap_or_default();
            inner
                .plugins
                .insert(plugin.name().to_owned(), Kept { component, conduct });
        }
    }

    /// Whether a plugin's handler may run for a guest.
    pub(crate) fn permit(&self, plugin: &Plugin, guest: &str) -> Result<Run, Obstacle> {
        let began = now();
        let run = Run {
            guest: guest.to_owned(),
            began,
        };
        let mut inner = self.inner();
        let Some(conduct) = inner.conduct(plugin) else {
            return Ok(run);
        };
        match conduct.permission(guest, began) {
            Permission::Now => Ok(run),
            Permission::At(then) => Err(Obstacle::Pause(then)),
            Permission::No(quarantine) => Err(Obstacle::Quarantine(format!(
                "is quarantined for {} for another {}, after {} faults in a row, the last: {}; change the plugin and \
                 reload, or run `xenplug plugin release {}`",
                whom(quarantine.guest.as_deref()),
                rounded(quarantine.until - began),
                quarantine.faults,
                quarantine.cause,
                plugin.name(),
            ))),
        }
    }

    /// A handler has done what it was to do.
    pub(crate) fn succeeded(&self, plugin: &Plugin, run: &Run) {
        if let Some(conduct) = self.inner().conduct(plugin) {
            conduct.succeeded(&run.guest);
        }
    }

    /// A handler has failed. A fault that is not its own, but its device's, tells nothing about it.
    pub(crate) fn failed(&self, metrics: &Metrics, plugin: &Plugin, run: &Run, fault: &Fault, serves_others: bool) {
        if !fault.is_the_plugins() {
            return;
        }
        metrics.fault(plugin.name());
        let mut inner = self.inner();
        let rules = inner.rules.clone();
        let Some(conduct) = inner.conduct(plugin) else {
            return;
        };
        let now = now();
        let told = Told {
            guest: &run.guest,
            began: run.began,
            now,
            serves_others,
            cause: &fault.to_string(),
        };
        for begun in conduct.failed(&rules, told) {
            error!(
                plugin = plugin.name(),
                whom = whom(begun.guest.as_deref()),
                guest = begun.guest,
                faults = begun.faults,
                time = %rounded(begun.until - now),
                cause = begun.cause,
                "the plugin is quarantined"
            );
        }
    }

    /// Lets a plugin run again, as if it had never failed. Whether there is one of that name.
    pub(crate) fn release(&self, name: &str) -> bool {
        let mut inner = self.inner();
        let Some(kept) = inner.plugins.get_mut(name) else {
            return false;
        };
        kept.conduct = FailureHistory::default();
        info!(plugin = name, "released, as the operator asked for");
        true
    }

    /// How a plugin behaves.
    pub(crate) fn conduct(&self, plugin: &Plugin) -> answer::Conduct {
        let mut inner = self.inner();
        let (now, today) = (now(), SystemTime::now());
        let Some(conduct) = inner.conduct(plugin) else {
            return answer::Conduct::default();
        };
        answer::Conduct {
            faults: conduct.faults(),
            quarantines: conduct
                .quarantines(now)
                .map(|quarantine| answer::Quarantine {
                    guest: quarantine.guest.clone(),
                    until: (today + (quarantine.until - now))
                        .duration_since(SystemTime::UNIX_EPOCH)
                        .unwrap_or_default()
                        .as_secs(),
                    faults: quarantine.faults,
                    cause: quarantine.cause.clone(),
                })
                .collect(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves a whole record, and a wrong one would only be milder or stricter.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The conduct of a plugin, if it is of the configuration that counts now.
    fn conduct(&mut self, plugin: &Plugin) -> Option<&mut FailureHistory> {
        let kept = self.plugins.get_mut(plugin.name())?;
        (kept.component == plugin.component()).then_some(&mut kept.conduct)
    }
}

/// The time, also a simulated one.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn whom(guest: Option<&str>) -> &'static str {
    guest.map_or("all guests", |_| "this guest")
}

/// A time in whole seconds, for people.
fn rounded(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs().max(1)))
}
