//! `config`: the plugin's own table of the operator's configuration.

use super::must_go_on;
use crate::{bindings::xen::hotplug::config, event::Event};

impl config::Host for Event {
    fn value(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        must_go_on(self)?;
        Ok(self.context.config.get(&key).cloned())
    }
}
