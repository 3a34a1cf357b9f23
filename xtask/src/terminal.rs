//! Output on the terminal, and commands whose output goes there.
#![allow(clippy::print_stderr, reason = "this module is where xtask prints")]

use std::{
    io::{Write, stderr},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// Prints the title of a step that begins.
pub(crate) fn step(what: &str) {
    eprintln!("==> {what}");
}

/// Prints a detail of the current step.
pub(crate) fn note(what: &str) {
    eprintln!("    {what}");
}

/// Prints a warning that stands out among other lines.
pub(crate) fn warning(what: &str) {
    eprintln!("!!! WARNING: {what}");
}

/// Prints the error that ends the task.
pub(crate) fn failure(why: &str) {
    eprintln!("error: {why}");
}

/// Prints the output of a task, to standard output.
#[allow(clippy::print_stdout, reason = "a task's output goes to standard output")]
pub(crate) fn answer(text: &str) {
    println!("{text}");
}

/// Prints the progress of a step: over the line before on a terminal, else on a line of its own.
pub(crate) fn progress(what: &str, is_terminal: bool) {
    if is_terminal {
        // The sequence moves to the start of the line and erases it.
        eprint!("\r\x1b[K    {what}");
        let _ = stderr().flush();
    } else {
        note(what);
    }
}

/// Ends the line of [`progress`] on a terminal.
pub(crate) fn end_of_progress() {
    eprintln!();
}

/// Runs a command to its end, with its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a command to its end, and returns its standard output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let Output { status, stdout, .. } = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    String::from_utf8(stdout).with_context(|| format!("{} wrote no UTF-8", line(command)))
}

/// Returns a command as a line for a message.
pub(crate) fn line(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    parts.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
