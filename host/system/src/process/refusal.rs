//! Errors of helpers, with the same text on Linux and on the simulated host.

use std::{path::Path, time::Duration};

use crate::Error;

pub(crate) fn missing(helper: &str, path: &Path) -> Error {
    Error::NotFound(format!(
        "the helper {helper:?} is not installed: {} does not exist",
        path.display()
    ))
}

pub(crate) fn not_executable(helper: &str, path: &Path) -> Error {
    Error::NotFound(format!(
        "the helper {helper:?} is no program: {} cannot be executed",
        path.display()
    ))
}

pub(crate) fn out_of_time(helper: &str, limit: Duration) -> Error {
    Error::Kernel {
        what: format!("run the helper {helper:?}"),
        errno: None,
        source_text: format!("it had not ended after {limit:?}, and was killed"),
    }
}
