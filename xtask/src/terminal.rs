//! Output on the terminal, and the commands that are run for it.
#![allow(clippy::print_stderr, reason = "this module is where xtask prints")]

use std::{
    io::{Write, stderr},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// Prints the step that begins.
pub(crate) fn step(what: &str) {
    eprintln!("==> {what}");
}

/// Prints a detail of the current step.
pub(crate) fn note(what: &str) {
    eprintln!("    {what}");
}

/// Prints that something is missing, so that it is not overlooked among other lines.
pub(crate) fn warning(what: &str) {
    eprintln!("!!! WARNING: {what}");
}

/// Prints the error that ends the task.
pub(crate) fn failure(why: &str) {
    eprintln!("error: {why}");
}

/// Prints what was asked for, to standard output.
#[allow(clippy::print_stdout, reason = "it is what was asked for")]
pub(crate) fn answer(text: &str) {
    println!("{text}");
}

/// Prints how far a step is: over the line before on a terminal, else on a line of its own.
pub(crate) fn progress(what: &str, is_terminal: bool) {
    if is_terminal {
        // To the line's begin, and what was there is erased.
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

/// Runs a command to its end for its standard output.
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
