//! The timers of one device.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::retry::{AGAIN, Pauses};

/// A timer that has expired. At one instant, the earlier variant comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A script call has waited for as long as it can.
    CallOverdue,
    /// The device is to be read again, or its release tried again.
    Reread,
    /// The handler's thread has not come back from the kernel.
    HandlerLate,
    /// The handler may start: its plugin's backoff is over.
    HandlerStart,
}

/// The timers that the task of a device sets for itself.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    reread: Option<Instant>,
    handler_start: Option<Instant>,
    release_retry: Pauses,
}

impl Deadlines {
    pub(super) fn reread_soon(&mut self) {
        self.reread = Some(Instant::now() + AGAIN);
    }

    /// Sets the time of the next try to release; the pauses between tries grow.
    pub(super) fn retry_release(&mut self) {
        self.reread = Some(Instant::now() + self.release_retry.next());
    }

    pub(super) fn released(&mut self) {
        self.release_retry = Pauses::default();
    }

    pub(super) fn start_handler_at(&mut self, at: Instant) {
        self.handler_start = Some(at);
    }

    pub(super) fn start_handler_after(&mut self, pause: Duration) {
        self.handler_start = Some(Instant::now() + pause);
    }

    /// Cancels the start of a handler. Returns whether one was to start.
    pub(super) fn cancel_handler_start(&mut self) -> bool {
        self.handler_start.take().is_some()
    }

    /// Returns the first timer to expire, among those of the calls and of the handler that runs as well.
    pub(super) fn first(&self, call_overdue: Option<Instant>, handler_late: Option<Instant>) -> Deadline {
        let timers = [
            (call_overdue, Timer::CallOverdue),
            (self.reread, Timer::Reread),
            (handler_late, Timer::HandlerLate),
            (self.handler_start, Timer::HandlerStart),
        ];
        let set = timers.into_iter().filter_map(|(at, timer)| Some((at?, timer)));
        Deadline(set.min())
    }

    /// Clears a timer that has expired.
    pub(super) fn clear(&mut self, timer: Timer) {
        match timer {
            Timer::Reread => self.reread = None,
            Timer::HandlerStart => self.handler_start = None,
            // Their owners set them.
            Timer::CallOverdue | Timer::HandlerLate => {}
        }
    }
}

/// The first timer to expire, if any is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline(Option<(Instant, Timer)>);

impl Deadline {
    pub(super) async fn expired(self) -> Timer {
        match self.0 {
            Some((at, timer)) => {
                sleep_until(at).await;
                timer
            }
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn first_timer_expires_first() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        assert_eq!(deadlines.first(None, None), Deadline(None));
        deadlines.start_handler_at(after(2));
        deadlines.reread_soon();
        let first = deadlines.first(Some(after(3)), Some(after(1)));
        assert_eq!(
            first.expired().await,
            Timer::Reread,
            "set for the same time as HandlerLate"
        );
        deadlines.clear(Timer::Reread);
        assert_eq!(deadlines.first(None, None).expired().await, Timer::HandlerStart);
        assert_eq!(Instant::now(), after(2));
        assert!(deadlines.cancel_handler_start());
        assert!(!deadlines.cancel_handler_start());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_between_releases_grow_until_released() {
        let mut deadlines = Deadlines::default();
        let mut pause = || {
            deadlines.retry_release();
            deadlines.reread.expect("it is set") - Instant::now()
        };
        let pauses = [pause(), pause(), pause()];
        assert_eq!(pauses.map(|pause| pause.as_secs()), [1, 2, 4]);
        deadlines.released();
        deadlines.retry_release();
        assert_eq!(deadlines.reread.expect("it is set") - Instant::now(), AGAIN);
    }
}
