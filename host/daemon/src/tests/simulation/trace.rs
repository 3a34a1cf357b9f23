//! The trace of a seed: the log lines of the daemon and of the world, by the simulation's clock.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;
use tracing::{Dispatch, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
    layer::SubscriberExt,
};

use super::workers::is_worker;

/// The lines of one seed.
#[derive(Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Vec<u8>>>);

impl Trace {
    /// Creates the subscriber that writes the trace.
    pub(super) fn log(&self) -> Dispatch {
        let ours = ["xenplugd", "xenplug_runtime", "xenplug_xenstore", "world"];
        let targets = Targets::new()
            .with_targets(ours.map(|target| (target, LevelFilter::DEBUG)))
            .with_target("xenplug_store_server::transport", LevelFilter::TRACE);
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .with_timer(Clock(Mutex::default()))
            .with_writer(self.clone());
        tracing_subscriber::registry().with(lines.with_filter(targets)).into()
    }

    pub(super) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl MakeWriter<'_> for Trace {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time since the first line. It stands still while a worker works.
struct Clock(Mutex<Option<Instant>>);

impl FormatTime for Clock {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        if is_worker() {
            return write!(to, "{:>11}", "|");
        }
        let mut began = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = began.get_or_insert_with(Instant::now).elapsed();
        write!(to, "{:>11.3}", elapsed.as_secs_f64())
    }
}
