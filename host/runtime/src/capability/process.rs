//! `process`: helper programs that the operator named.

use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use wasmtime::component::Resource;
use xenplug_system::{
    Error,
    grant::ProcessGrant,
    process::{HelperProcess, Output},
};

use super::CallError;
use crate::{
    Effect, ResourceError,
    bindings::xen::hotplug::{process, types},
    event::{Context, Event},
    shared::Joined,
};

/// How often it is looked whether a helper has come to where it is waited for.
const MOMENT: Duration = Duration::from_millis(20);

/// A helper that the device holds.
pub struct OwnHelper {
    kept: HelperProcess,
    /// The lines that it had written before the device came to it.
    before: u64,
}

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
        let resources = &mut self.subject()?.resources;
        let tag = resources.own_tag();
        // While it runs it is held, and so is what it leaves running: it is found by the tag and ended.
        let effect = Effect::Helper {
            tag: tag.clone(),
            kept: None,
            role: None,
        };
        let ran = resources.acquire(effect.clone(), || {
            let output = context.system.process.run(grant, &helper, &arguments, &tag, limit)?;
            Ok((effect, output))
        });
        // Without an intent there is nothing to forget.
        if !matches!(ran, Err(ResourceError::Journal(_) | ResourceError::TooMuch)) && leaves_nothing(&context, &tag) {
            resources.forget_last()?;
        }
        Ok(to_guest(&ran?))
    }

    fn apply(
        &mut self,
        helper: String,
        arguments: Vec<String>,
        undo: process::Undo,
    ) -> Result<process::Output, CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let limit = self.deadline.saturating_duration_since(Instant::now());
        let grant = grant(&context)?;
        // Both are refused before one is run.
        grant.command(&helper, &arguments)?;
        let command = grant.command(&undo.helper, &undo.arguments)?;
        let resources = &mut self.subject()?.resources;
        let instance = resources.header().part();
        let tag = resources.own_tag();
        let effect = |ended| Effect::Command {
            tag: tag.clone(),
            undo: command.clone(),
            settled: undo.settled.clone(),
            ended,
        };
        context.shared.undo.hold(&command, &instance);
        let ran = resources.acquire(effect(false), || {
            let output = context.system.process.run(grant, &helper, &arguments, &tag, limit)?;
            if output.code == 0 || undo.after_failure {
                return Ok((effect(true), output));
            }
            let left = Effect::Helper {
                tag: tag.clone(),
                kept: None,
                role: None,
            };
            Ok((left, output))
        });
        let nothing_was_done = match &ran {
            Ok(output) => output.code != 0 && !undo.after_failure && leaves_nothing(&context, &tag),
            // It did not even start. After other errors it may have.
            Err(ResourceError::Platform(Error::NotFound(_) | Error::Denied(_) | Error::Invalid { .. })) => true,
            Err(_) => false,
        };
        // Without an intent there is nothing to forget.
        let no_intent = matches!(ran, Err(ResourceError::Journal(_) | ResourceError::TooMuch));
        if nothing_was_done {
            resources.forget_last()?;
        }
        if nothing_was_done || no_intent {
            context.shared.undo.release(&command, &instance);
        }
        Ok(to_guest(&ran?))
    }
}

/// Whether no process is left of a helper that has ended.
fn leaves_nothing(context: &Context, tag: &str) -> bool {
    matches!(context.system.process.find(tag), Ok(left) if left.is_empty())
}

fn to_guest(output: &Output) -> process::Output {
    process::Output {
        code: output.code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl process::HostHelperProcess for Event {
    fn start(&mut self, helper: String, arguments: Vec<String>) -> Result<Resource<OwnHelper>, CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let grant = grant(&context)?;
        let resources = &mut self.subject()?.resources;
        let part = resources.header().part();
        let tag = resources.own_tag();
        let effect = |kept| Effect::Helper {
            tag: tag.clone(),
            kept,
            role: None,
        };
        let kept = resources.acquire(effect(None), || {
            let kept = context.system.process.start(grant, &helper, &arguments, &tag)?;
            context.shared.helpers.started(&tag, &kept, &part);
            Ok((effect(Some(kept.clone())), kept))
        })?;
        Ok(self.table.push(OwnHelper { kept, before: 0 })?)
    }

    fn join(&mut self, helper: String, arguments: Vec<String>) -> Result<Resource<OwnHelper>, CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let process = context.system.process.as_ref();
        let grant = grant(&context)?;
        // What is granted now counts, also where one runs that was granted earlier.
        grant.command(&helper, &arguments)?;
        let header = self.subject()?.resources.header();
        let (role, part) = (header.service(&helper), header.part());
        let joined = self.wait(|| context.shared.helpers.try_join(process, &role, &part))?;
        let (tag, running) = match joined {
            Joined::Running(tag, kept) => (tag, Some(kept)),
            Joined::First(tag) => (tag, None),
        };
        let before = context.shared.helpers.lines_read(&tag);
        let effect = |kept| Effect::Helper {
            tag: tag.clone(),
            kept,
            role: Some(role.clone()),
        };
        let joined = self.subject()?.resources.acquire(effect(None), || {
            let kept = match running {
                Some(kept) => kept,
                None => {
                    let startable = context.shared.store.may_start_helper(&part.device);
                    startable.map_err(|why| Error::NotFound(format!("{helper}: {why}")))?;
                    process.start(grant, &helper, &arguments, &tag)?
                }
            };
            context.shared.helpers.started(&tag, &kept, &part);
            Ok((effect(Some(kept.clone())), kept))
        });
        let kept = match joined {
            Ok(kept) => kept,
            Err(error) => {
                // Others wait for it to be started or to go. What the record holds of it is undone as always.
                context.shared.helpers.leave(process, &tag, None, Some(&role), &part)?;
                return Err(error.into());
            }
        };
        Ok(self.table.push(OwnHelper { kept, before })?)
    }

    fn wait_until_serving(
        &mut self,
        this: Resource<OwnHelper>,
        milliseconds: u32,
        refusal: Option<String>,
    ) -> Result<(), CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let (process, helpers) = (context.system.process.as_ref(), &context.shared.helpers);
        let until = Instant::now() + Duration::from_millis(milliseconds.into());
        let OwnHelper { kept, before } = self.table.get(&this)?;
        let (kept, before) = (kept.clone(), *before);
        let device = self.subject()?.device.key.clone();
        let unavailable = |cause: String| Err(CallError::Guest(types::Error::Unavailable(cause)));
        loop {
            match context.shared.store.backend_started(&device) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(unknown) => return unavailable(unknown),
            }
            if !process.running(&kept) {
                let cause = format!("{} has ended by itself", kept.helper);
                return unavailable(helpers.explain(process, &kept, cause));
            }
            let refused = refusal
                .as_ref()
                .and_then(|text| helpers.line_with(process, &kept, before, text));
            if let Some(line) = refused {
                return unavailable(format!("{}: {line}", kept.helper));
            }
            if Instant::now() >= until {
                let cause = format!("{} does not serve the device after {milliseconds} ms", kept.helper);
                return unavailable(helpers.explain(process, &kept, cause));
            }
            sleep(MOMENT);
            self.may_go_on().map_err(|stop| CallError::Trap(stop.into()))?;
        }
    }

    fn pid(&mut self, this: Resource<OwnHelper>) -> wasmtime::Result<u32> {
        super::must_go_on(self)?;
        Ok(self.table.get(&this)?.kept.pid)
    }

    fn running(&mut self, this: Resource<OwnHelper>) -> wasmtime::Result<bool> {
        super::must_go_on(self)?;
        let kept = &self.table.get(&this)?.kept;
        Ok(self.context.system.process.running(kept))
    }

    fn drop(&mut self, this: Resource<OwnHelper>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
