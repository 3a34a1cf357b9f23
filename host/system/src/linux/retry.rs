//! Retry of calls that a signal interrupts, for those that no library retries.

use std::io;

/// Repeats a call while it fails with EINTR.
pub(in crate::linux) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
