//! Locking of the tables that several threads share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a table, even if a thread panicked while it held the lock. The entries are consistent all the same: each
/// change to a table of this crate is one insertion or removal.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
