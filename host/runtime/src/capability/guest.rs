//! `guest`: the few facts about the frontend domain.

use crate::{bindings::xen::hotplug::guest, event::Event};

impl guest::Host for Event {
    fn vm(&mut self) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self.subject.as_ref().and_then(|subject| subject.device.vm.clone()))
    }

    fn name(&mut self) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self.subject.as_ref().and_then(|subject| subject.device.vm_name.clone()))
    }

    fn uuid(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.vm()?.and_then(|vm| vm.strip_prefix("/vm/").map(str::to_owned)))
    }
}
