//! What the person at the terminal sees, and the commands that are run for them.
#![allow(clippy::print_stderr, reason = "this module is where xtask prints")]

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Says what is about to happen.
pub(crate) fn step(what: &str) {
    eprintln!("==> {what}");
}

/// Says something about the current step.
pub(crate) fn note(what: &str) {
    eprintln!("    {what}");
}

/// Says why it all ended early.
pub(crate) fn failure(why: &str) {
    eprintln!("error: {why}");
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

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
