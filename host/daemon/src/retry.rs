//! Pauses between retries, and retries of a store that is away.

use std::{future::Future, time::Duration};

use tokio::time::sleep;
use xenplug_xenstore::{Errno, Error};

/// The first pause before a retry.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);

/// The pauses between the tries of an operation that keeps failing: each is twice as long as the one before.
#[derive(Debug, Default)]
pub(crate) struct Pauses(u32);

impl Pauses {
    const LONGEST: Duration = Duration::from_secs(60);

    /// Returns the pause after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let failed = self.0;
        self.0 = failed.saturating_add(1);
        grown(AGAIN, failed, Self::LONGEST)
    }
}

/// Doubles a time so many times, up to a longest.
pub(crate) fn grown(time: Duration, times: u32, longest: Duration) -> Duration {
    time.saturating_mul(2_u32.saturating_pow(times)).min(longest)
}

/// Tests whether an error is the store's answer, rather than a passing condition.
pub(crate) fn is_final(error: &Error) -> bool {
    !error.is_disconnected() && error.errno() != Some(Errno::Again)
}

/// Retries a request until the store answers, be it with an error, or until `waits` says no.
pub(crate) async fn retry_store<T, F>(waits: impl Fn() -> bool, mut request: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match request().await {
            Err(error) if !is_final(&error) && waits() => sleep(AGAIN).await,
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut pauses = Pauses::default();
        let seconds: Vec<u64> = (0..9).map(|_| pauses.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        pauses.0 = u32::MAX;
        assert_eq!(pauses.next(), Pauses::LONGEST);
    }
}
