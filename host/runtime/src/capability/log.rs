//! `log`: lines for the daemon's log, bounded and cleaned.

use tracing::{debug, error, info, warn};

use crate::{bindings::xen::hotplug::log, event::Event, limits::Limits, text::clean};

impl log::Host for Event {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.count_call()?;
        self.log_lines += 1;
        if self.log_lines > self.context.limits.log_lines {
            // The end of the event logs how many were dropped.
            return Ok(());
        }
        let plugin = self.context.name.as_str();
        let message = clean(&message, Limits::LOG_LINE);
        match level {
            log::Level::Debug => debug!(plugin, "{message}"),
            log::Level::Info => info!(plugin, "{message}"),
            log::Level::Warn => warn!(plugin, "{message}"),
            log::Level::Error => error!(plugin, "{message}"),
        }
        Ok(())
    }
}
