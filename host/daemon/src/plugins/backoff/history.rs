//! The failures of one plugin by guest, as a pure function of the failures and their times.
//!
//! Each failure in a row doubles the time for which the plugin does not run for that guest. A success ends it. A guest's
//! owner may know what a plugin stumbles over, so one guest's failures never count for another guest. Handlers that began
//! before a failure was known say nothing new when they fail too: a burst of devices counts as one failure.

use std::{collections::BTreeMap, time::Instant};

use crate::{config::BackoffTimes, retry::grown};

/// A handler's failure for a guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure<'a> {
    pub(super) guest: &'a str,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) cause: &'a str,
}

/// The backoff of one plugin for one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    /// Failures in a row.
    pub(super) failures: u32,
    /// When the last failure became known.
    last: Instant,
    /// When the plugin may run for the guest again.
    pub(super) until: Instant,
    /// The last failure, for people.
    pub(super) cause: String,
}

/// The failures of one plugin by guest.
#[derive(Debug, Default)]
pub(super) struct FailureHistory {
    guests: BTreeMap<String, Backoff>,
}

impl FailureHistory {
    /// The most guests that are remembered. Beyond it, the guest whose last failure is the oldest is forgotten.
    const MAX_GUESTS: usize = 1024;

    /// Returns the backoff that keeps the plugin from running for a guest now.
    pub(super) fn active(&self, guest: &str, now: Instant) -> Option<&Backoff> {
        self.guests.get(guest).filter(|backoff| backoff.until > now)
    }

    /// Counts a failure, and returns the backoff that it starts. Returns `None` for a handler that began before the last
    /// failure was known.
    pub(super) fn failed(&mut self, times: &BackoffTimes, failure: Failure<'_>) -> Option<&Backoff> {
        let before = self.guests.get(failure.guest);
        if before.is_some_and(|backoff| failure.began < backoff.last) {
            return None;
        }
        let failures = before.map_or(0, |backoff| backoff.failures).saturating_add(1);
        if before.is_none() && self.guests.len() >= Self::MAX_GUESTS {
            self.forget_oldest();
        }
        let backoff = Backoff {
            failures,
            last: failure.ended,
            until: failure.ended + grown(times.first, failures - 1, times.longest),
            cause: failure.cause.to_owned(),
        };
        let entry = self.guests.entry(failure.guest.to_owned());
        Some(entry.insert_entry(backoff).into_mut())
    }

    /// Ends the backoff for a guest.
    pub(super) fn succeeded(&mut self, guest: &str) {
        self.guests.remove(guest);
    }

    /// Lists the guests for which the plugin does not run now.
    pub(super) fn all_active(&self, now: Instant) -> impl Iterator<Item = (&str, &Backoff)> {
        let all = self.guests.iter().filter(move |(_, backoff)| backoff.until > now);
        all.map(|(guest, backoff)| (guest.as_str(), backoff))
    }

    fn forget_oldest(&mut self) {
        let oldest = self.guests.iter().min_by_key(|(_, backoff)| backoff.last);
        if let Some(oldest) = oldest.map(|(guest, _)| guest.clone()) {
            self.guests.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
