//! Fault suite of `docs/reliability.md`: runs exactly the tests that its table names, and shows their results.

mod plan;
mod table;

use std::{
    collections::HashMap,
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use table::{Outcome, Row};

use crate::{
    binaries::{self, Binary},
    roots, terminal,
    workspace::Workspace,
};

/// Document that lists the fault suite.
const TABLE: &str = "docs/reliability.md";

/// Interval of the notes that a test still runs.
const INTERVAL: Duration = Duration::from_secs(60);

/// Options of the fault suite.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// True to run all cases: hours rather than minutes.
    pub(crate) long: bool,
    /// True to print the table as JSON, on standard output.
    pub(crate) json: bool,
    /// Rows such as T14, or parts of tests' names. Without any, all rows run.
    pub(crate) filters: Vec<String>,
}

/// Runs the fault suite. Fails if a row of the table failed.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let text = std::fs::read_to_string(workspace.root.join(TABLE)).context(TABLE)?;
    for filter in &arguments.filters {
        if plan::of(&text, std::slice::from_ref(filter)).is_empty() {
            bail!("{TABLE} has no row {filter}, and no test with that in its name");
        }
    }
    let plan = plan::of(&text, &arguments.filters);
    if plan.is_empty() {
        bail!("{TABLE} names no test");
    }
    terminal::step("Build the tests");
    let binaries = binaries::build(workspace)?;
    let mut tests = Vec::new();
    for binary in &binaries {
        tests.extend(binary.tests(workspace)?.into_iter().map(|test| (binary, test)));
    }
    let (mut rows, mut done) = (Vec::new(), HashMap::new());
    for (id, names) in plan {
        let mut row = Row::of(id);
        for name in names {
            let mut named = tests
                .iter()
                .filter(|(_, test)| test.rsplit("::").next() == Some(name))
                .peekable();
            if named.peek().is_none() {
                bail!("{TABLE}: {id} names {name}, and there is no such test");
            }
            for (binary, full) in named {
                terminal::step(&format!("{id}: {name}"));
                let test = (&binary.program, full.as_str());
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
        failed => bail!("{failed} of {} rows failed", rows.len()),
    }
}

/// Runs one test of a binary, with its standard error on the terminal.
fn run_test(workspace: &Workspace, binary: &Binary, full: &str, long: bool) -> Result<Outcome> {
    let mut test = binary.command(workspace, roots::PRIMARY)?;
    test.args([full, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .stderr(Stdio::inherit());
    if long {
        test.env("XENPLUG_FAULT_SUITE", "long");
    }
    let begun = Instant::now();
    let done = reporting_progress(begun, || test.output()).with_context(|| full.to_owned())?;
    let stdout = String::from_utf8_lossy(&done.stdout);
    Ok(Outcome::of(&stdout, done.status.success(), begun.elapsed()))
}

/// Calls a long-running function, and prints its running time at intervals.
fn reporting_progress<T>(begun: Instant, what: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (over, is_over) = mpsc::channel::<()>();
        scope.spawn(move || {
            while is_over.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                terminal::note(&format!("running for {} s", begun.elapsed().as_secs()));
            }
        });
        let done = what();
        drop(over);
        done
    })
}
