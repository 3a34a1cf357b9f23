//! What to do when the store is away: it is asked again until it answers, as that is nobody's fault but its own.

use std::{future::Future, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use xenplug_xenstore::{Errno, Error};

/// How soon to ask again.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);

/// Whether an error is the store's last word, or may pass.
pub(crate) fn is_final(error: &Error) -> bool {
    !error.is_disconnected() && error.errno() != Some(Errno::Again)
}

/// Asks until the store answers, be it with an error; or until the daemon ends.
pub(crate) async fn patiently<T, F>(ending: &CancellationToken, mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match ask().await {
            Err(error) if !is_final(&error) && !ending.is_cancelled() => sleep(AGAIN).await,
            answer => return answer,
        }
    }
}
