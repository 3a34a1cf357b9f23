//! Messages on standard error, and exit codes.

use std::io::{self, Write};

/// Exit code of usage and configuration errors, which is clap's as well.
pub(crate) const USAGE: u8 = 2;

/// Prints an error or a warning.
pub(crate) fn complain(text: &str) {
    // There is nowhere else to report to.
    let _ = writeln!(io::stderr(), "xenplug: {text}");
}
