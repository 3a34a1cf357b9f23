//! How often to try again, and after how long.

use std::{
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::Error;

/// How often to try a transaction, and how long to wait in between: not at all after the first failure, then `first`,
/// doubled each time up to `most`. What is waited is a random part of it, half at least, so that rivals part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How often to try altogether.
    pub attempts: u32,
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
}

impl Default for Backoff {
    /// 30 attempts, 1 to 50 milliseconds apart: about a second.
    fn default() -> Self {
        Self {
            attempts: 30,
            first: Duration::from_millis(1),
            most: Duration::from_millis(50),
        }
    }
}

impl Backoff {
    /// Starts counting, for a loop of one's own.
    pub fn attempts(&self) -> Attempts<'_> {
        Attempts {
            backoff: self,
            failed: 0,
            chance: Chance::default(),
        }
    }

    /// The same, with waits that chance decides.
    #[cfg(feature = "async")]
    pub(crate) fn attempts_by(&self, chance: &Chance) -> Attempts<'_> {
        Attempts {
            chance: chance.clone(),
            ..self.attempts()
        }
    }
}

/// What decides about the random part of waits.
#[derive(Clone, Debug, Default)]
pub(crate) enum Chance {
    /// The kernel's randomness: enough to part rivals.
    #[default]
    Kernel,
    /// A seed, and how often it was asked.
    Seeded(u64, Arc<AtomicU64>),
}

impl Chance {
    #[cfg(feature = "async")]
    pub(crate) fn of(seed: Option<u64>) -> Self {
        seed.map_or(Self::Kernel, |seed| Self::Seeded(seed, Arc::default()))
    }

    /// A number of at most 1.
    fn part(&self) -> f64 {
        let random = match self {
            // The standard library seeds each of these from there.
            Self::Kernel => RandomState::new().hash_one(0),
            Self::Seeded(seed, asked) => {
                let mut hasher = DefaultHasher::new();
                (seed, asked.fetch_add(1, Ordering::Relaxed)).hash(&mut hasher);
                hasher.finish()
            }
        };
        f64::from(random as u32) / f64::from(u32::MAX)
    }
}

/// The attempts made so far.
#[derive(Debug)]
pub struct Attempts<'a> {
    backoff: &'a Backoff,
    failed: u32,
    chance: Chance,
}

impl Attempts<'_> {
    /// Waits before the next attempt. [`Error::Conflict`] if there is none left.
    #[cfg(feature = "async")]
    pub async fn pause(&mut self) -> Result<(), Error> {
        let wait = self.next()?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// How long to wait before the next attempt. [`Error::Conflict`] if there is none left.
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

/// The wait after `doublings` others: a random part, half at least, of `first` doubled so often, but of `most` at most.
pub(crate) fn wait(first: Duration, most: Duration, doublings: u32, chance: &Chance) -> Duration {
    let full = first.saturating_mul(1 << doublings.min(20)).min(most);
    full / 2 + (full / 2).mul_f64(chance.part())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_bounded() {
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
