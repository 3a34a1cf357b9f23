//! How long to wait before something is tried again; and that the store, when it is away, is asked until it answers, as
//! that is nobody's fault but its own.

use std::{future::Future, time::Duration};

use tokio::time::sleep;
use xenplug_xenstore::{Errno, Error};

/// How soon to ask again.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);

/// The pauses between the tries of what keeps failing: each is twice as long as the one before.
#[derive(Debug, Default)]
pub(crate) struct Pauses(u32);

impl Pauses {
    /// The longest.
    const MOST: Duration = Duration::from_secs(60);

    /// How long to wait, now that it has failed once more.
    pub(crate) fn next(&mut self) -> Duration {
        let failed = self.0;
        self.0 = failed.saturating_add(1);
        grown(AGAIN, failed, Self::MOST)
    }
}

/// A time that has doubled so many times, up to a most.
pub(crate) fn grown(time: Duration, times: u32, most: Duration) -> Duration {
    time.saturating_mul(2_u32.saturating_pow(times)).min(most)
}

/// Whether an error is the store's last word, or may pass.
pub(crate) fn is_final(error: &Error) -> bool {
    !error.is_disconnected() && error.errno() != Some(Errno::Again)
}

/// PendingCalls until the store answers, be it with an error; or for as long as there is reason to wait.
pub(crate) async fn patiently<T, F>(waits: impl Fn() -> bool, mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match ask().await {
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
        assert_eq!(pauses.next(), Pauses::MOST);
    }
}
