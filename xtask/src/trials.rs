//! The trials of `docs/reliability.md`: runs exactly the tests that its table names, and shows how they ended.

mod binaries;
mod plan;
mod table;

use std::{
    collections::HashMap,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{terminal, workspace::Workspace};
use binaries::{Binaries, Binary};
use table::{Outcome, Row};

/// Where the trials are named.
const TABLE: &str = "docs/reliability.md";

/// How often it is told that a test still runs.
const STILL: Duration = Duration::from_secs(60);

/// What to run, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// At length: hours rather than minutes.
    pub(crate) long: bool,
    /// The table as JSON, on standard output.
    pub(crate) json: bool,
    /// Rows such as T14, or parts of tests' names; all without any.
    pub(crate) filters: Vec<String>,
}

/// Runs the trials. An error if one of them failed.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let text = std::fs::read_to_string(workspace.root.join(TABLE)).context(TABLE)?;
    for filter in &arguments.filters {
        if plan::of(&text, std::slice::from_ref(filter)).is_empty() {
            bail!("{TABLE} names no trial {filter}, and no test with that in its name");
        }
    }
    let plan = plan::of(&text, &arguments.filters);
    if plan.is_empty() {
        bail!("{TABLE} names no test");
    }
    terminal::step("Build the tests");
    let binaries = Binaries::build(workspace)?;
    let (mut rows, mut done) = (Vec::new(), HashMap::new());
    for (trial, names) in plan {
        let mut row = Row::of(trial);
        for name in names {
            let places = binaries.with(name);
            if places.is_empty() {
                bail!("{TABLE}: {trial} names {name}, and there is no such test");
            }
            for (binary, full) in places {
                terminal::step(&format!("{trial}: {name}"));
                let test = (&binary.program, full);
                let outcome = match done.get(&test) {
                    Some(outcome) => *outcome,
                    None => run_test(workspace, binary, full, arguments.long)?,
                };
                done.insert(test, outcome);
                terminal::note(&outcome.to_string());
                row.add(name, outcome);
            }
        }
        rows.push(row);
    }
    table::show(&rows, done.into_values().collect(), arguments.json);
    match rows.iter().filter(|row| !row.passed()).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} trials failed", rows.len()),
    }
}

/// Runs one test in its binary, with its complaints on the terminal.
fn run_test(workspace: &Workspace, binary: &Binary, full: &str, long: bool) -> Result<Outcome> {
    let mut test = Command::new(&binary.program);
    test.args([full, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .current_dir(&binary.folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if long {
        test.env("XENPLUG_TRIALS", "long");
    }
    let begun = Instant::now();
    let test = workspace.with_parts(&mut test);
    let done = telling_that_it_runs(begun, || test.output()).with_context(|| full.to_owned())?;
    let said = String::from_utf8_lossy(&done.stdout);
    Ok(Outcome::of(&said, done.status.success(), begun.elapsed()))
}

/// Does what takes long, and tells from time to time for how long it has.
fn telling_that_it_runs<T>(begun: Instant, what: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (over, is_over) = mpsc::channel::<()>();
        scope.spawn(move || {
            while is_over.recv_timeout(STILL) == Err(mpsc::RecvTimeoutError::Timeout) {
                terminal::note(&format!("running for {} s", begun.elapsed().as_secs()));
            }
        });
        let done = what();
        drop(over);
        done
    })
}
