//! Options of a client.

use std::time::Duration;

/// Options of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Time for a request, including the wait for a slot in the window. A connection that exceeds it is closed and made
    /// again. Default: 20 seconds.
    pub deadline: Duration,
    /// Number of different paths that a watch queues before one [`Event::Resync`](super::Event) replaces them. Default:
    /// 1024.
    pub events: usize,
    /// First and longest delay between attempts to connect again. Default: 50 milliseconds and 1 second.
    pub reconnect: (Duration, Duration),
    /// Seed of the random part of these delays and of those between attempts at a transaction, for runs that repeat.
    /// Default: the kernel's randomness.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(20),
            events: 1024,
            reconnect: (Duration::from_millis(50), Duration::from_secs(1)),
            seed: None,
        }
    }
}
