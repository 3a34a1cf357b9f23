//! For how long a driver domain leaves the directory of a device that is down where it is.
//!
//! libxl calls for the removal of all devices of a guest, sets a watch for each, and then reads its `state`
//! (libxl_device.c, `libxl__initiate_device_generic_remove`). Where there is none any longer, the removal has failed
//! (libxl_event.c, `devstate_callback`). How long it takes libxl to come to read, the store's own speed tells.

use std::time::Duration;

/// This many times what one transaction took, within bounds.
const TRANSACTIONS: u32 = 20;
const LEAST: Duration = Duration::from_millis(100);
/// libxl waits for 10 s that the directory goes (libxl_internal.h, `LIBXL_DESTROY_TIMEOUT`).
const MOST: Duration = Duration::from_secs(4);

/// How long, if the word that the device is disconnected took so long to write.
pub(super) fn pause(told_in: Duration) -> Duration {
    (told_in * TRANSACTIONS).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_store_has_a_slow_toolstack() {
        for (told_in, millis) in [(0, 100), (1, 100), (50, 1000), (1000, 4000)] {
            assert_eq!(pause(Duration::from_millis(told_in)), Duration::from_millis(millis));
        }
    }
}
