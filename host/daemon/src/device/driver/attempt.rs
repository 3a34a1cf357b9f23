//! One attempt to connect a device: the handler's input, and its result.

use std::sync::Arc;

use tokio::time::Instant;
use xenplug_runtime::{Connection, Device, Fault, Plugin};
use xenplug_system::lock::ScriptLock;

use crate::{
    device::observe::{Fingerprint, Snapshot},
    metrics::Metrics,
    plugins::backoff::{Backoffs, HandlerRun},
};

/// One attempt to connect a device: the handler's input, and its result.
pub(super) struct Attempt {
    pub(super) began: Instant,
    /// The handler's input, from the read that found the device ready for its handler.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) fingerprint: Fingerprint,
    pub(super) plugin: Option<Arc<Plugin>>,
    /// The device as the handler saw it.
    pub(super) device: Option<Arc<Device>>,
    pub(super) connection: Connection,
    /// Keeps the original scripts out from the handler's return to the end of the action that follows.
    pub(super) script_lock: Option<ScriptLock>,
    /// The handler run whose outcome the plugin's backoff waits for.
    pub(super) run: Option<HandlerRun>,
}

impl Attempt {
    /// The attempt of an earlier daemon, of which the plugin is known.
    pub(super) fn of_plugin(plugin: Option<Arc<Plugin>>) -> Self {
        Self {
            began: Instant::now(),
            snapshot: None,
            fingerprint: Fingerprint::default(),
            plugin,
            device: None,
            connection: Connection::default(),
            script_lock: None,
            run: None,
        }
    }

    /// The plugin's name, or the daemon's while no plugin is known.
    pub(super) fn plugin_name(&self) -> &str {
        self.plugin.as_ref().map_or("xenplugd", |plugin| plugin.name())
    }

    pub(super) fn succeeded(&mut self, backoffs: &Backoffs) {
        if let (Some(plugin), Some(run)) = (&self.plugin, self.run.take()) {
            backoffs.succeeded(plugin, &run);
        }
    }

    /// Reports a fault of the plugin itself. A fault of its device says nothing about the plugin.
    pub(super) fn failed(&mut self, backoffs: &Backoffs, metrics: &Metrics, fault: &Fault) {
        if let (Some(plugin), Some(run)) = (&self.plugin, self.run.take())
            && fault.is_the_plugins()
        {
            metrics.fault(plugin.name());
            backoffs.failed(plugin, &run, fault);
        }
    }
}
