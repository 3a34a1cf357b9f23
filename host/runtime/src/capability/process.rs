//! `process`: helper programs that the operator named.

use std::{sync::Arc, time::Instant};

use wasmtime::component::Resource;
use xenplug_system::{
    Error,
    grant::ProcessGrant,
    process::{Kept, Output},
};

use super::CallError;
use crate::{
    Effect, HoldingError,
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
        let tag = holding.own_tag();
        // While it runs it is held, and so is what it leaves running: it is found by the tag and ended.
        let effect = Effect::Helper {
            tag: tag.clone(),
            kept: None,
        };
        let ran = holding.acquire(effect.clone(), || {
            let output = context.system.process.run(grant, &helper, &arguments, &tag, limit)?;
            Ok((effect, output))
        });
        // Without an intent there is nothing to forget.
        if !matches!(ran, Err(HoldingError::Journal(_) | HoldingError::TooMuch)) && leaves_nothing(&context, &tag) {
            holding.forget_last()?;
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
        let holding = &mut self.subject()?.holding;
        let key = holding.header().identity.key.clone();
        let tag = holding.own_tag();
        let effect = |ended| Effect::Command {
            tag: tag.clone(),
            undo: command.clone(),
            settled: undo.settled.clone(),
            ended,
        };
        context.claims.undoings.hold(&command, &key);
        let ran = holding.acquire(effect(false), || {
            let output = context.system.process.run(grant, &helper, &arguments, &tag, limit)?;
            if output.code == 0 || undo.after_failure {
                return Ok((effect(true), output));
            }
            let left = Effect::Helper {
                tag: tag.clone(),
                kept: None,
            };
            Ok((left, output))
        });
        let nothing_was_done = match &ran {
            Ok(output) => output.code != 0 && !undo.after_failure && leaves_nothing(&context, &tag),
            // It did not even start. After other errors it may have.
            Err(HoldingError::System(Error::NotFound(_) | Error::Denied(_) | Error::Invalid { .. })) => true,
            Err(_) => false,
        };
        // Without an intent there is nothing to forget.
        let no_intent = matches!(ran, Err(HoldingError::Journal(_) | HoldingError::TooMuch));
        if nothing_was_done {
            holding.forget_last()?;
        }
        if nothing_was_done || no_intent {
            context.claims.undoings.give_up(&command, &key);
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

impl process::HostKept for Event {
    fn start(&mut self, helper: String, arguments: Vec<String>) -> Result<Resource<KeptHelper>, CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let grant = grant(&context)?;
        let holding = &mut self.subject()?.holding;
        let tag = holding.own_tag();
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
