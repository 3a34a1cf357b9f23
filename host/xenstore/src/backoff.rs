//! Backoff between attempts at a transaction or a connection.

use std::{
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::Error;

/// Number of attempts at a transaction, and the delays between them: none after the first failure, then `first`, doubled
/// each time up to `most`. The actual delay is a random part, at least half, so that competing clients separate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Number of attempts, the first included.
    pub attempts: u32,
    /// First delay.
    pub first: Duration,
    /// Longest delay.
    pub most: Duration,
}

impl Default for Backoff {
    /// Returns 30 attempts, 1 to 50 milliseconds apart: about a second.
    fn default() -> Self {
        Self {
            attempts: 30,
            first: Duration::from_millis(1),
            most: Duration::from_millis(50),
        }
    }
}

impl Backoff {
    /// Starts to count attempts, for a loop that the caller writes.
    pub fn attempts(&self) -> Attempts<'_> {
        Attempts {
            backoff: self,
            failed: 0,
            chance: Chance::default(),
        }
    }

    /// Starts to count attempts, with randomness from `chance`.
    #[cfg(feature = "async")]
    pub(crate) fn attempts_by(&self, chance: &Chance) -> Attempts<'_> {
        Attempts {
            chance: chance.clone(),
            ..self.attempts()
        }
    }
}

/// Source of the random part of delays.
#[derive(Clone, Debug, Default)]
pub(crate) enum Chance {
    /// The kernel's randomness: enough to separate competing clients.
    #[default]
    Kernel,
    /// A seed, and the number of draws from it.
    Seeded(u64, Arc<AtomicU64>),
}

impl Chance {
    #[cfg(feature = "async")]
    pub(crate) fn of(seed: Option<u64>) -> Self {
        seed.map_or(Self::Kernel, |seed| Self::Seeded(seed, Arc::default()))
    }

    /// Draws a number from 0 to 1.
    fn part(&self) -> f64 {
        let random = match self {
            // The standard library seeds each of these from the kernel.
            Self::Kernel => RandomState::new().hash_one(0),
            Self::Seeded(seed, draws) => {
                let mut hasher = DefaultHasher::new();
                (seed, draws.fetch_add(1, Ordering::Relaxed)).hash(&mut hasher);
                hasher.finish()
            }
        };
        f64::from(random as u32) / f64::from(u32::MAX)
    }
}

/// Count of failed attempts.
#[derive(Debug)]
pub struct Attempts<'a> {
    backoff: &'a Backoff,
    failed: u32,
    chance: Chance,
}

impl Attempts<'_> {
    /// Waits before the next attempt. [`Error::Conflict`] if none is left.
    #[cfg(feature = "async")]
    pub async fn pause(&mut self) -> Result<(), Error> {
        let wait = self.next()?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Returns the delay before the next attempt. [`Error::Conflict`] if none is left.
    pub(crate) fn next(&mut self) -> Result<Duration, Error> {
        self.failed += 1;
        if self.failed >= self.backoff.attempts {
            return Err(Error::Conflict(self.failed));
        }
        Ok(match self.failed {
            1 => Duration::ZERO,
            failed => wait(self.backoff.first, self.backoff.most, failed - 2, &self.chance),
        })
    }
}

/// Returns the delay after `doublings` others: a random part, at least half, of `first` doubled that often, up to `most`.
pub(crate) fn wait(first: Duration, most: Duration, doublings: u32, chance: &Chance) -> Duration {
    let full = first.saturating_mul(1 << doublings.min(20)).min(most);
    full / 2 + (full / 2).mul_f64(chance.part())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        let (first, most) = (Duration::from_millis(1), Duration::from_millis(50));
        for (doublings, full) in [(0, 1), (1, 2), (4, 16), (6, 50), (40, 50), (u32::MAX, 50)] {
            let full = Duration::from_millis(full);
            for _ in 0..50 {
                let wait = wait(first, most, doublings, &Chance::default());
                assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
            }
        }
    }
}
