//! What to do when the store is away: it is asked again until it answers, as that is nobody's fault but its own.

use std::{future::Future, time::Duration};

use tokio::time::sleep;
use xenplug_xenstore::{Errno, Error};

/// How soon to ask again.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);

/// Whether an error is the store's last word, or may pass.
pub(crate) fn is_final(error: &Error) -> bool {
    !error.is_disconnected() && error.errno() != Some(Errno::Again)
}

/// Asks until the store answers, be it with an error; or for as long as there is reason to wait.
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
