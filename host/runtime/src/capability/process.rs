//! `process`: helper programs that the operator named.

use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use wasmtime::component::Resource;
use xenplug_system::process::Output;

use crate::{
    bindings::xen::hotplug::process,
    call_error::CallError,
    event::Event,
    handles::HeldHelper,
    resource::{Command, Helper, Undo},
};

/// Interval between looks at a helper that is to begin to serve the device. Its output, its end and the node that it
/// writes are three sources without one event.
const POLL: Duration = Duration::from_millis(20);

fn to_guest(output: &Output) -> process::Output {
    process::Output {
        code: output.code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl process::Host for Event {
    fn run(&mut self, helper: String, arguments: Vec<String>) -> Result<process::Output, CallError> {
        self.count_call()?;
        let context = Arc::clone(&self.context);
        let limit = self.deadline.saturating_duration_since(Instant::now());
        let ran = Helper::run(self.resources()?, context.access(), &helper, &arguments, limit);
        Ok(to_guest(&ran?))
    }

    fn apply(
        &mut self,
        helper: String,
        arguments: Vec<String>,
        undo: process::Undo,
    ) -> Result<process::Output, CallError> {
        self.count_call()?;
        let context = Arc::clone(&self.context);
        let limit = self.deadline.saturating_duration_since(Instant::now());
        let undo = Undo {
            command: context.access().process()?.command(&undo.helper, &undo.arguments)?,
            settled: undo.settled,
            after_failure: undo.after_failure,
        };
        let ran = Command::acquire(self.resources()?, context.access(), &helper, &arguments, undo, limit);
        Ok(to_guest(&ran?))
    }
}

impl process::HostHelperProcess for Event {
    fn start(&mut self, helper: String, arguments: Vec<String>) -> Result<Resource<HeldHelper>, CallError> {
        self.count_call()?;
        let context = Arc::clone(&self.context);
        let process = Helper::start(self.resources()?, context.access(), &helper, &arguments)?;
        Ok(self.table.push(HeldHelper {
            process,
            lines_before: 0,
        })?)
    }

    fn join(&mut self, helper: String, arguments: Vec<String>) -> Result<Resource<HeldHelper>, CallError> {
        self.count_call()?;
        let context = Arc::clone(&self.context);
        // The grants of today count, also where a helper runs that was granted earlier.
        context.access().process()?.command(&helper, &arguments)?;
        let header = self.resources()?.header();
        let (key, instance) = (header.helper_key(&helper), header.instance());
        let (helpers, process) = (&context.shared.helpers, &*context.platform.process);
        let joined = self.wait(|| helpers.try_join(process, &key, &instance))?;
        let lines_before = helpers.lines_read(joined.tag());
        let process = Helper::join(self.resources()?, context.access(), &key, &arguments, joined)?;
        Ok(self.table.push(HeldHelper { process, lines_before })?)
    }

    fn wait_until_serving(
        &mut self,
        this: Resource<HeldHelper>,
        milliseconds: u32,
        refusal: Option<String>,
    ) -> Result<(), CallError> {
        self.count_call()?;
        let context = Arc::clone(&self.context);
        let (process, shared) = (&*context.platform.process, &context.shared);
        let until = Instant::now() + Duration::from_millis(milliseconds.into());
        let held = self.table.get(&this)?;
        let (running, lines_before) = (held.process.clone(), held.lines_before);
        let device = self.subject()?.device.key.clone();
        let explain = |cause: String| CallError::Unavailable(shared.helpers.explain(process, &running, cause));
        loop {
            if shared.store.backend_started(&device).map_err(CallError::Unavailable)? {
                return Ok(());
            }
            if !process.running(&running) {
                return Err(explain(format!("{} has ended by itself", running.helper)));
            }
            let refused = refusal
                .as_ref()
                .and_then(|text| shared.helpers.line_with(process, &running, lines_before, text));
            if let Some(line) = refused {
                return Err(CallError::Unavailable(format!("{}: {line}", running.helper)));
            }
            if Instant::now() >= until {
                let cause = format!("{} does not serve the device after {milliseconds} ms", running.helper);
                return Err(explain(cause));
            }
            sleep(POLL);
            self.check()?;
        }
    }

    fn pid(&mut self, this: Resource<HeldHelper>) -> wasmtime::Result<u32> {
        self.count_call()?;
        Ok(self.table.get(&this)?.process.pid)
    }

    fn running(&mut self, this: Resource<HeldHelper>) -> wasmtime::Result<bool> {
        self.count_call()?;
        let process = &self.table.get(&this)?.process;
        Ok(self.context.platform.process.running(process))
    }

    fn drop(&mut self, this: Resource<HeldHelper>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
