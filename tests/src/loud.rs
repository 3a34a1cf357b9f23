//! Output that the test runner does not capture, for notes on tests that pass.

use std::io::{Write, stderr};

/// Writes a line to the process's own standard error.
pub fn say(text: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(stderr(), "{text}");
}
