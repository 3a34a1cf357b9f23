//! The log: text or JSON on standard error, or the journal when systemd runs the daemon.

mod rate_limit;

use std::{env, io, sync::LazyLock};

use clap::ValueEnum;
use tracing::warn;
use tracing_subscriber::{EnvFilter, Layer, filter::FilterExt, layer::SubscriberExt, util::SubscriberInitExt};

use rate_limit::RateLimitFilter;

/// What keeps floods out of the log.
static GATE: LazyLock<RateLimitFilter> = LazyLock::new(RateLimitFilter::default);

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins to log. `XENPLUG_LOG` filters, as `tracing_subscriber::EnvFilter` reads it; the default is `info`.
pub(crate) fn init(format: Option<Format>) {
    let filter = EnvFilter::try_from_env("XENPLUG_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_target(false);
    let layer = match format {
        // JOURNAL_STREAM: standard error is systemd's journal (systemd.exec(5)).
        None if env::var_os("JOURNAL_STREAM").is_some() => match tracing_journald::layer() {
            Ok(journal) => journal.boxed(),
            Err(_) => stderr.with_ansi(false).boxed(),
        },
        None | Some(Format::Text) => stderr.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        Some(Format::Json) => stderr.json().boxed(),
    };
    let gate: &'static RateLimitFilter = &GATE;
    tracing_subscriber::registry()
        .with(layer.with_filter(filter.and(gate)))
        .init();
}

/// Tells, for as long as it is polled, how many lines were kept out of the log.
pub(crate) async fn tell_of_floods() {
    loop {
        let lines = GATE.dropped().await;
        warn!(lines, "the log was flooded, and lines were left out");
    }
}
