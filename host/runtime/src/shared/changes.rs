//! Wakes threads that wait for a change of shared state.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// A counter of changes that threads wait on. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Changes {
    /// Wakes all that wait, after a change is in place.
    pub(crate) fn notify(&self) {
        *self.count() += 1;
        self.0.changed.notify_all();
    }

    /// Tries until an attempt yields something: now, after each change, and at the deadline for the last time.
    pub(crate) fn wait<T>(&self, deadline: Instant, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            // The count comes first: a change during the attempt ends the wait at once.
            let seen = *self.count();
            let left = deadline.saturating_duration_since(Instant::now());
            match attempt() {
                Some(value) => return Some(value),
                None if left.is_zero() => return None,
                None => {}
            }
            let unchanged = |count: &mut u64| *count == seen;
            drop(self.0.changed.wait_timeout_while(self.count(), left, unchanged));
        }
    }

    fn count(&self) -> MutexGuard<'_, u64> {
        self.0.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn waiter_wakes_at_a_change_and_not_before() {
        let (changes, ready, attempts) = (Changes::default(), AtomicBool::new(false), AtomicU32::new(0));
        let deadline = Instant::now() + Duration::from_secs(60);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                changes.wait(deadline, || {
                    attempts.fetch_add(1, Ordering::SeqCst);
                    ready.load(Ordering::SeqCst).then_some(7)
                })
            });
            while attempts.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(50));
            assert_eq!(attempts.load(Ordering::SeqCst), 1, "it does not poll");
            ready.store(true, Ordering::SeqCst);
            changes.notify();
            assert_eq!(waiter.join().expect("it does not panic"), Some(7));
        });
    }

    #[test]
    fn waiter_gives_up_at_its_deadline() {
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(Changes::default().wait(deadline, || None::<()>), None);
        assert!(Instant::now() >= deadline);
    }
}
