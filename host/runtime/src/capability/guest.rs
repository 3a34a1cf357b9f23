//! `guest`: the few facts about the frontend domain.

use super::must_go_on;
use crate::{bindings::xen::hotplug::guest, event::Event};

impl guest::Host for Event {
    fn vm(&mut self) -> wasmtime::Result<Option<String>> {
        must_go_on(self)?;
        Ok(self.subject.as_ref().and_then(|subject| subject.device.vm.clone()))
    }

    fn name(&mut self) -> wasmtime::Result<Option<String>> {
        must_go_on(self)?;
        Ok(self.subject.as_ref().and_then(|subject| subject.device.vm_name.clone()))
    }

    fn uuid(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.vm()?.and_then(|vm| vm.strip_prefix("/vm/").map(str::to_owned)))
    }
}
