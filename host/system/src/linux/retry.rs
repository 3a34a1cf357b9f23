//! Calls that a signal may interrupt, where no library calls them again.

use std::io;

/// Calls again what a signal interrupted.
pub(in crate::linux) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
