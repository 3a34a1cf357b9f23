//! Keeps the directory of a closed device for a while, so that a slow libxl still finds it.
//!
//! libxl asks for the removal of all devices of a guest, sets a watch for each, and then reads its `state`
//! (libxl_device.c, `libxl__initiate_device_generic_remove`). If there is none any longer, the removal has failed
//! (libxl_event.c, `devstate_callback`). The speed of the store tells how long libxl takes to come to that read.

use std::time::Duration;

/// The delay as a multiple of the time of one transaction.
const TRANSACTIONS: u32 = 20;
const SHORTEST: Duration = Duration::from_millis(100);
/// libxl waits for 10 s for the directory to go (libxl_internal.h, `LIBXL_DESTROY_TIMEOUT`).
const LONGEST: Duration = Duration::from_secs(4);

/// Computes the delay from the time that the last transaction took.
pub(super) fn removal_delay(transaction: Duration) -> Duration {
    (transaction * TRANSACTIONS).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_store_delays_the_removal_for_longer() {
        for (transaction, delay) in [(0, 100), (1, 100), (50, 1000), (1000, 4000)] {
            let transaction = Duration::from_millis(transaction);
            assert_eq!(removal_delay(transaction), Duration::from_millis(delay));
        }
    }
}
