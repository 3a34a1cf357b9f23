//! Processes that carry a tag in their environment.

use std::time::Duration;

use xenplug_system::{Error, Process};

/// Time between SIGTERM and SIGKILL for what a helper left running.
const GRACE: Duration = Duration::from_secs(3);

/// The time that a call at release may take. A script's call leaves the daemon 35 s.
pub(super) const RELEASE_LIMIT: Duration = Duration::from_secs(20);

/// Ends the processes with a tag.
pub(super) fn end(process: &dyn Process, tag: &str) -> Result<(), Error> {
    process
        .find(tag)?
        .iter()
        .try_for_each(|found| process.end(found, GRACE))
}

/// Returns whether no process with a tag is left.
pub(super) fn none_left(process: &dyn Process, tag: &str) -> bool {
    matches!(process.find(tag), Ok(left) if left.is_empty())
}
