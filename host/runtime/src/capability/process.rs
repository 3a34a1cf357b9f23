//! `process`: helper programs that the operator named.

use std::{sync::Arc, time::Instant};

use wasmtime::component::Resource;
use xenplug_system::{grant::ProcessGrant, process::Kept};

use super::CallError;
use crate::{
    Effect,
    bindings::xen::hotplug::process,
    event::{Context, Event},
};

/// A helper that the device holds.
pub struct KeptHelper(Kept);

fn grant(context: &Context) -> Result<&ProcessGrant, CallError> {
    // The interface is linked only when it is granted.
    context
        .grants
        .process
        .as_ref()
        .ok_or_else(|| CallError::denied("process is not granted"))
}

impl process::Host for Event {
    fn run(&mut self, helper: String, arguments: Vec<String>) -> Result<process::Output, CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let limit = self.deadline.saturating_duration_since(Instant::now());
        let grant = grant(&context)?;
        let holding = &mut self.subject()?.holding;
        let tag = holding.tag();
        // While it runs it is held: after a crash its tree is found by the tag and ended.
        let output = holding.during(
            Effect::Helper {
                tag: tag.clone(),
                kept: None,
            },
            || context.system.process.run(grant, &helper, &arguments, &tag, limit),
        )?;
        Ok(process::Output {
            code: output.code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

impl process::HostKept for Event {
    fn start(&mut self, helper: String, arguments: Vec<String>) -> Result<Resource<KeptHelper>, CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let grant = grant(&context)?;
        let holding = &mut self.subject()?.holding;
        let tag = holding.tag();
        let kept = holding.acquire(
            Effect::Helper {
                tag: tag.clone(),
                kept: None,
            },
            || {
                let kept = context.system.process.start(grant, &helper, &arguments, &tag)?;
                Ok((
                    Effect::Helper {
                        tag,
                        kept: Some(kept.clone()),
                    },
                    kept,
                ))
            },
        )?;
        Ok(self.table.push(KeptHelper(kept))?)
    }

    fn pid(&mut self, this: Resource<KeptHelper>) -> wasmtime::Result<u32> {
        super::must_go_on(self)?;
        Ok(self.table.get(&this)?.0.pid)
    }

    fn running(&mut self, this: Resource<KeptHelper>) -> wasmtime::Result<bool> {
        super::must_go_on(self)?;
        let kept = &self.table.get(&this)?.0;
        Ok(self.context.system.process.running(kept))
    }

    fn drop(&mut self, this: Resource<KeptHelper>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
