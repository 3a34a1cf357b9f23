use std::time::Duration;

use super::*;

/// A plugin's history, and a clock in seconds.
struct Fixture {
    history: FailureHistory,
    times: BackoffTimes,
    start: Instant,
    now: u64,
}

impl Fixture {
    fn new() -> Self {
        Self {
            history: FailureHistory::default(),
            times: BackoffTimes::default(),
            start: Instant::now(),
            now: 100,
        }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    /// Fails a handler that began just now. Returns whether that counts.
    fn fail(&mut self, guest: &str) -> bool {
        self.fail_begun_at(guest, self.now)
    }

    fn fail_begun_at(&mut self, guest: &str, began: u64) -> bool {
        let failure = Failure {
            guest,
            began: self.at(began),
            ended: self.at(self.now),
            cause: "crashed",
        };
        self.history.failed(&self.times, failure).is_some()
    }

    /// Seconds until the plugin may run for a guest.
    fn wait(&self, guest: &str) -> u64 {
        let now = self.at(self.now);
        let active = self.history.active(guest, now);
        active.map_or(0, |backoff| (backoff.until - now).as_secs())
    }

    fn fail_after_backoff(&mut self, guest: &str) -> u64 {
        self.now += self.wait(guest);
        assert!(self.fail(guest));
        self.wait(guest)
    }
}

#[test]
fn backoff_doubles_up_to_the_longest() {
    let mut fixture = Fixture::new();
    let waits: Vec<u64> = (0..12).map(|_| fixture.fail_after_backoff("a")).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
}

#[test]
fn backoff_of_one_guest_does_not_touch_another() {
    let mut fixture = Fixture::new();
    for _ in 0..20 {
        fixture.fail_after_backoff("a");
        fixture.fail_after_backoff("b");
    }
    assert_eq!(fixture.wait("c"), 0);
    let now = fixture.at(fixture.now);
    let guests: Vec<&str> = fixture.history.all_active(now).map(|(guest, _)| guest).collect();
    assert_eq!(guests, ["a", "b"]);
}

#[test]
fn success_ends_the_backoff() {
    let mut fixture = Fixture::new();
    for _ in 0..5 {
        fixture.fail_after_backoff("a");
    }
    fixture.history.succeeded("a");
    assert_eq!(fixture.wait("a"), 0);
    assert_eq!(fixture.fail_after_backoff("a"), 1);
}

#[test]
fn burst_of_failures_counts_once() {
    let mut fixture = Fixture::new();
    let began = fixture.now;
    fixture.now += 1;
    assert!(fixture.fail_begun_at("a", began));
    for _ in 0..40 {
        assert!(!fixture.fail_begun_at("a", began));
    }
    assert_eq!(fixture.wait("a"), 1);
    fixture.now += 5;
    assert_eq!(fixture.fail_after_backoff("a"), 2);
}

#[test]
fn oldest_guest_is_forgotten_beyond_the_limit() {
    let mut fixture = Fixture::new();
    let guests = 3 * FailureHistory::MAX_GUESTS;
    for guest in 0..guests {
        fixture.fail(&guest.to_string());
        fixture.now += 1;
    }
    assert_eq!(fixture.history.guests.len(), FailureHistory::MAX_GUESTS);
    assert!(fixture.history.guests.contains_key(&(guests - 1).to_string()));
}
