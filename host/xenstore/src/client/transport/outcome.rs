//! Outcomes of reading and sending on a transport.

use crate::Errno;

/// Outcome of reading.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client) enum Arrival {
    /// Number of bytes.
    Bytes(usize),
    /// Requests that the kernel refused, by their number.
    Refused(Vec<(u32, Errno)>),
}

/// Outcome of sending.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client) enum Sent {
    /// Everything is sent.
    All,
    /// The peer has to read before the rest can be sent.
    Later,
    /// The connection is broken.
    Broken,
}
