//! The log: text or JSON on standard error, or the journal when systemd runs the daemon.

mod rate_limit;

use std::{env, io, sync::LazyLock};

use clap::ValueEnum;
use tracing::warn;
use tracing_subscriber::{EnvFilter, Layer, filter::FilterExt, layer::SubscriberExt, util::SubscriberInitExt};

use rate_limit::RateLimitFilter;

static RATE_LIMIT: LazyLock<RateLimitFilter> = LazyLock::new(RateLimitFilter::default);

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Plain lines.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts the log. `XENPLUG_LOG` filters, as `tracing_subscriber::EnvFilter` reads it; the default is `info`.
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
    let rate_limit: &'static RateLimitFilter = &RATE_LIMIT;
    tracing_subscriber::registry()
        .with(layer.with_filter(filter.and(rate_limit)))
        .init();
}

/// Logs how many lines the rate limit left out, for as long as it is polled.
pub(crate) async fn report_floods() {
    loop {
        let lines = RATE_LIMIT.dropped().await;
        warn!(lines, "the rate limit of the log left out {lines} lines");
    }
}
