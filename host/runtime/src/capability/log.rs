//! `log`: lines for the daemon's log, bounded and cleaned.

use tracing::{debug, error, info, warn};

use super::must_go_on;
use crate::{Limits, bindings::xen::hotplug::log, clean, event::Event};

impl log::Host for Event {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        must_go_on(self)?;
        self.log_lines += 1;
        if self.log_lines > self.context.limits.log_lines {
            // How many were dropped is told when the event ends.
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
