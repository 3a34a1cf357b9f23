//! Random numbers of a seed: the same in every run.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A stream of random numbers (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
#[derive(Debug)]
pub(super) struct Chance(AtomicU64);

impl Chance {
    /// The stream of a seed for one user. It does not depend on how many numbers other users take.
    pub(super) fn of(seed: u64, user: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, user).hash(&mut hasher);
        Self(AtomicU64::new(hasher.finish()))
    }

    pub(super) fn number(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below a bound.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    /// Returns `true` in so many of a thousand cases.
    pub(super) fn permille(&self, cases: u64) -> bool {
        self.below(1000) < cases
    }

    /// Returns a time of at most so many milliseconds.
    pub(super) fn upto(&self, milliseconds: u64) -> Duration {
        Duration::from_millis(self.below(milliseconds + 1))
    }

    /// Returns a time between two numbers of milliseconds.
    pub(super) fn between(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }

    pub(super) fn pick<T: Copy>(&self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize]
    }
}
