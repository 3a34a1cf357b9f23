//! Keeps a flood out of the log: each source has so many lines in a while, and of more it is told how many there were.
//!
//! A source is a place in the program, together with the plugin that it speaks of, so that one plugin's flood hides
//! neither another's lines nor the daemon's own (XSA-180 is what a log without bounds is good for).

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

/// Lines of a source in each [`WHILE`]: a thousand devices may come and go at once.
const LINES: u32 = 2000;
/// How long those have to do.
const WHILE: Duration = Duration::from_secs(10);

/// What lets lines through, or not.
#[derive(Debug, Default)]
pub(crate) struct RateLimitFilter {
    inner: Mutex<Inner>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    sources: HashMap<(Identifier, Option<String>), Source>,
    dropped: u64,
}

/// The lines of a source in the while that runs.
#[derive(Debug)]
struct Source {
    since: Instant,
    lines: u32,
}

impl Source {
    /// Whether one more line may pass.
    fn pass(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WHILE {
            *self = Self { since: now, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= LINES
    }
}

impl RateLimitFilter {
    /// Waits until lines were dropped, and a while more. How many there were.
    pub(crate) async fn dropped(&self) -> u64 {
        self.some.notified().await;
        tokio::time::sleep(WHILE).await;
        std::mem::take(&mut self.inner().dropped)
    }

    fn pass(&self, callsite: Identifier, plugin: Option<String>, now: Instant) -> bool {
        let mut inner = self.inner();
        let source = inner.sources.entry((callsite, plugin));
        let pass = source.or_insert(Source { since: now, lines: 0 }).pass(now);
        if !pass {
            inner.dropped += 1;
            self.some.notify_one();
        }
        pass
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // They are counts; a wrong one is a line more or less.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Filter<S> for &'static RateLimitFilter {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let mut plugin = OfPlugin(None);
        event.record(&mut plugin);
        self.pass(event.metadata().callsite(), plugin.0, Instant::now())
    }
}

/// Finds the plugin that a line speaks of.
struct OfPlugin(Option<String>);

impl Visit for OfPlugin {
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

    /// Counts what comes through.
    #[derive(Clone, Default)]
    struct Heard(std::sync::Arc<Mutex<HashMap<String, u32>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut plugin = OfPlugin(None);
            event.record(&mut plugin);
            let mut heard = self.0.lock().expect("nobody panicked");
            *heard.entry(plugin.0.unwrap_or_default()).or_default() += 1;
        }
    }

    #[test]
    fn a_flood_is_cut_off_and_told_and_hides_nobody_elses_lines() {
        let gate: &'static RateLimitFilter = Box::leak(Box::default());
        let heard = Heard::default();
        let subscriber = tracing_subscriber::registry().with(heard.clone().with_filter(gate));
        tracing::subscriber::with_default(subscriber, || {
            let tell = |plugin: &str| tracing::info!(plugin, "a line");
            for _ in 0..LINES + 70 {
                tell("loud");
            }
            tell("quiet");
            tracing::info!("another place");
        });
        let heard = heard.0.lock().expect("nobody panicked").clone();
        let expected = [("loud", LINES), ("quiet", 1), ("", 1)];
        assert_eq!(heard, expected.map(|(who, lines)| (who.to_owned(), lines)).into());
        assert_eq!(gate.inner().dropped, 70);
    }

    #[test]
    fn after_a_while_a_source_is_heard_again() {
        let began = Instant::now();
        let mut source = Source {
            since: began,
            lines: LINES,
        };
        assert!(!source.pass(began));
        assert!(!source.pass(began + WHILE / 2));
        assert!(source.pass(began + WHILE));
    }
}
