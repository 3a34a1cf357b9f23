//! A rate limit for the log: each source may write so many lines in a period, and further lines are only counted.
//!
//! A source is a log statement together with the plugin that it names, so that one plugin's flood hides neither another
//! plugin's lines nor the daemon's own (XSA-180 shows what a log without bounds leads to).

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::{
    Event, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

/// The lines of a source in each [`PERIOD`]: a thousand devices may come and go at once.
const LINES: u32 = 2000;
const PERIOD: Duration = Duration::from_secs(10);

/// Drops the lines of a source beyond its limit.
#[derive(Debug, Default)]
pub(crate) struct RateLimitFilter {
    inner: Mutex<Inner>,
    some_dropped: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    sources: HashMap<(Identifier, Option<String>), Source>,
    dropped: u64,
}

/// The lines of a source in the current period.
#[derive(Debug)]
struct Source {
    since: Instant,
    lines: u32,
}

impl Source {
    fn pass(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= PERIOD {
            *self = Self { since: now, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= LINES
    }
}

impl RateLimitFilter {
    /// Waits until lines were dropped, and a period more. Returns how many there were.
    pub(crate) async fn dropped(&self) -> u64 {
        self.some_dropped.notified().await;
        tokio::time::sleep(PERIOD).await;
        std::mem::take(&mut self.inner().dropped)
    }

    fn pass(&self, callsite: Identifier, plugin: Option<String>, now: Instant) -> bool {
        let mut inner = self.inner();
        let source = inner.sources.entry((callsite, plugin));
        let pass = source.or_insert(Source { since: now, lines: 0 }).pass(now);
        if !pass {
            inner.dropped += 1;
            self.some_dropped.notify_one();
        }
        pass
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A wrong count is a line more or less.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Filter<S> for &'static RateLimitFilter {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let mut plugin = PluginField(None);
        event.record(&mut plugin);
        self.pass(event.metadata().callsite(), plugin.0, Instant::now())
    }
}

/// Finds the plugin that a line names.
struct PluginField(Option<String>);

impl Visit for PluginField {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "plugin" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::*;

    /// Counts the lines that pass, by plugin.
    #[derive(Clone, Default)]
    struct Passed(std::sync::Arc<Mutex<HashMap<String, u32>>>);

    impl<S: Subscriber> Layer<S> for Passed {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut plugin = PluginField(None);
            event.record(&mut plugin);
            let mut passed = self.0.lock().expect("nobody panicked");
            *passed.entry(plugin.0.unwrap_or_default()).or_default() += 1;
        }
    }

    #[test]
    fn flood_is_cut_off_counted_and_hides_no_other_source() {
        let filter: &'static RateLimitFilter = Box::leak(Box::default());
        let passed = Passed::default();
        let subscriber = tracing_subscriber::registry().with(passed.clone().with_filter(filter));
        tracing::subscriber::with_default(subscriber, || {
            let log = |plugin: &str| tracing::info!(plugin, "a line");
            for _ in 0..LINES + 70 {
                log("loud");
            }
            log("quiet");
            tracing::info!("another statement");
        });
        let passed = passed.0.lock().expect("nobody panicked").clone();
        let expected = [("loud", LINES), ("quiet", 1), ("", 1)];
        assert_eq!(passed, expected.map(|(who, lines)| (who.to_owned(), lines)).into());
        assert_eq!(filter.inner().dropped, 70);
    }

    #[test]
    fn rate_limit_resets_after_a_period() {
        let began = Instant::now();
        let mut source = Source {
            since: began,
            lines: LINES,
        };
        assert!(!source.pass(began));
        assert!(!source.pass(began + PERIOD / 2));
        assert!(source.pass(began + PERIOD));
    }
}
