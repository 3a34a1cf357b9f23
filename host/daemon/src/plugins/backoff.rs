//! Backoff for plugins that keep failing: a plugin that failed a guest by its own fault does not run for that guest for a
//! while.
//!
//! A handler that may run soon waits; one that would wait for longer fails at once, as its toolstack would not wait for it.
//! Nothing of it outlives the daemon.

mod history;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tracing::warn;
use xenplug_control as answer;
use xenplug_runtime::{Fault, Plugin};

use self::history::{Failure, FailureHistory};
use crate::{config::BackoffTimes, plugins::PluginSet};

/// The longest time that a device waits for its plugin. libxl kills a hotplug script after 40 s
/// (tools/libs/light/libxl_internal.h, `LIBXL_HOTPLUG_TIMEOUT`), of which the handler needs some.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The backoffs of all plugins.
pub(crate) struct Backoffs(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    times: BackoffTimes,
    /// By the plugin's name.
    plugins: BTreeMap<String, PluginBackoffs>,
}

struct PluginBackoffs {
    /// The component that failed.
    component: String,
    history: FailureHistory,
}

/// A handler that may run now. Its outcome is reported with it.
#[derive(Clone, Debug)]
pub(crate) struct HandlerRun {
    guest: String,
    began: Instant,
}

/// An active backoff that keeps a handler from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The handler may run at that time.
    Wait(Instant),
    /// The backoff is too long to wait for: the device fails for this reason.
    Fail(String),
}

impl Backoffs {
    pub(crate) fn new(plugins: &PluginSet) -> Self {
        let backoffs = Self(Mutex::default());
        backoffs.reconfigure(plugins);
        backoffs
    }

    /// Follows a reload. A plugin with another component starts without a history.
    pub(crate) fn reconfigure(&self, plugins: &PluginSet) {
        let mut inner = self.inner();
        let mut before = std::mem::take(&mut inner.plugins);
        inner.times = plugins.backoff.clone();
        for plugin in plugins.serving.iter().map(|serving| &serving.plugin) {
            let component = plugin.component().to_owned();
            let kept = before.remove(plugin.name()).filter(|kept| kept.component == component);
            let history = kept.map(|kept| kept.history).unwrap_or_default();
            let backoffs = PluginBackoffs { component, history };
            inner.plugins.insert(plugin.name().to_owned(), backoffs);
        }
    }

    /// Decides whether a plugin's handler may run for a guest.
    pub(crate) fn permit(&self, plugin: &Plugin, guest: &str) -> Result<HandlerRun, Obstacle> {
        let began = now();
        let active = self
            .inner()
            .history(plugin)
            .and_then(|history| history.active(guest, began).cloned());
        match active {
            None => Ok(HandlerRun {
                guest: guest.to_owned(),
                began,
            }),
            Some(backoff) if backoff.until - began <= LONGEST_WAIT => Err(Obstacle::Wait(backoff.until)),
            Some(backoff) => Err(Obstacle::Fail(format!(
                "does not run for this guest for another {}; failures in a row: {}, the last: {}; change the plugin and \
                 reload, or try again then",
                seconds(backoff.until - began),
                backoff.failures,
                backoff.cause,
            ))),
        }
    }

    /// Reports that a handler did what it was to do.
    pub(crate) fn succeeded(&self, plugin: &Plugin, run: &HandlerRun) {
        if let Some(history) = self.inner().history(plugin) {
            history.succeeded(&run.guest);
        }
    }

    /// Reports that a handler failed by the plugin's own fault.
    pub(crate) fn failed(&self, plugin: &Plugin, run: &HandlerRun, fault: &Fault) {
        let mut inner = self.inner();
        let times = inner.times.clone();
        let Some(history) = inner.history(plugin) else {
            return;
        };
        let ended = now();
        let failure = Failure {
            guest: &run.guest,
            began: run.began,
            ended,
            cause: &fault.to_string(),
        };
        if let Some(backoff) = history.failed(&times, failure) {
            let (name, guest) = (plugin.name(), &run.guest);
            let time = seconds(backoff.until - ended);
            warn!(
                plugin = name,
                guest,
                failures = backoff.failures,
                "{name}: backs off from guest {guest} for {time}, failures in a row: {}, the last: {}",
                backoff.failures,
                backoff.cause,
            );
        }
    }

    /// Lists the guests that a plugin backs off from now.
    pub(crate) fn active(&self, plugin: &Plugin) -> Vec<answer::Backoff> {
        let (now, today) = (now(), SystemTime::now());
        let mut inner = self.inner();
        let Some(history) = inner.history(plugin) else {
            return Vec::new();
        };
        let active = history.all_active(now).map(|(guest, backoff)| answer::Backoff {
            guest: guest.to_owned(),
            failures: backoff.failures,
            until: (today + (backoff.until - now))
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
            cause: backoff.cause.clone(),
        });
        active.collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves a whole record, and a wrong one would only be milder or stricter.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Returns the history of a plugin of the current configuration.
    fn history(&mut self, plugin: &Plugin) -> Option<&mut FailureHistory> {
        let backoffs = self.plugins.get_mut(plugin.name())?;
        (backoffs.component == plugin.component()).then_some(&mut backoffs.history)
    }
}

/// The time of tokio's clock, which is simulated in tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn seconds(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs().max(1)))
}
