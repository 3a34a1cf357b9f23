//! `config`: the plugin's own table of the operator's configuration.

use crate::{bindings::xen::hotplug::config, event::Event};

impl config::Host for Event {
    fn value(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self.context.config.get(&key).cloned())
    }
}
