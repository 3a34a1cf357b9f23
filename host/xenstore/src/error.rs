//! Errors of requests, and the errors that the protocol names.

use std::{fmt, io, sync::Arc, time::Duration};

use crate::{Endpoint, PathError};

/// Error of a request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// the store refused a request
    #[error("{operation} {subject}: {errno}")]
    Store {
        /// The request's name in `docs/misc/xenstore.txt`, such as `WRITE`.
        operation: &'static str,
        /// Path or domain of the request; empty for transactions.
        subject: String,
        /// The reason.
        errno: Errno,
    },
    /// a transaction met changes of others in every attempt
    #[error("others changed the same nodes {0} times in a row")]
    Conflict(u32),
    /// the connection is lost, and the client has not connected again yet
    #[error("the connection to xenstored is lost")]
    Disconnected,
    /// no reply in time; the connection is closed too
    #[error("xenstored did not answer within {0:?}")]
    Timeout(Duration),
    /// the peer does not speak the protocol
    #[error("xenstored sent {0}")]
    Protocol(String),
    /// a value, list or path that does not fit into one message
    #[error("{operation} {subject}: {size} bytes do not fit into a message of {limit}")]
    TooLarge {
        /// The request's name.
        operation: &'static str,
        /// Path of the request.
        subject: String,
        /// Size of its payload in bytes.
        size: usize,
        /// Largest payload.
        limit: usize,
    },
    /// not a path
    #[error(transparent)]
    Path(#[from] PathError),
    /// the first connection could not be made
    #[error("cannot reach xenstored at {endpoint}")]
    Unreachable {
        /// Endpoint that was tried.
        endpoint: Endpoint,
        /// The cause.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// Returns the error that the store sent, if the store refused the request.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Store { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Returns whether the node, or the transaction, does not exist.
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(Errno::NoEnt)
    }

    /// Returns whether the domain lacks the permission.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(Errno::Access | Errno::Perm))
    }

    /// Returns whether a commit met changes of others, so that the transaction has to run again.
    pub fn is_conflict(&self) -> bool {
        self.errno() == Some(Errno::Again)
    }

    /// Returns whether a quota of the domain is used up.
    pub fn is_quota(&self) -> bool {
        matches!(self.errno(), Some(Errno::NoSpace | Errno::TooBig | Errno::NoMemory))
    }

    /// Returns whether the connection was lost before the reply. The request may have taken effect; a watch's `Resync` comes
    /// when the store can be read again.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected | Self::Timeout(_))
    }
}

#[cfg(feature = "xenstore-rs-traits")]
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Store { errno, .. } => errno.io_kind(),
            Error::Conflict(_) => io::ErrorKind::WouldBlock,
            Error::Disconnected => io::ErrorKind::BrokenPipe,
            Error::Timeout(_) => io::ErrorKind::TimedOut,
            Error::Protocol(_) => io::ErrorKind::InvalidData,
            Error::TooLarge { .. } | Error::Path(_) => io::ErrorKind::InvalidInput,
            Error::Unreachable { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// Errors that the protocol has names for (xs_wire.h, `xsd_errors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Errno {
    /// `EINVAL`: malformed.
    Invalid,
    /// `EACCES`: the domain lacks the permission.
    Access,
    /// `EEXIST`: that watch is set already.
    Exists,
    /// `EISDIR`.
    IsDirectory,
    /// `ENOENT`: no such node, watch, transaction or domain.
    NoEnt,
    /// `ENOMEM`: xenstored's memory, or a memory quota.
    NoMemory,
    /// `ENOSPC`: the quota of nodes, node size or transactions.
    NoSpace,
    /// `EIO`.
    Io,
    /// `ENOTEMPTY`.
    NotEmpty,
    /// `ENOSYS`: a request that xenstored does not know.
    NoSys,
    /// `EROFS`.
    ReadOnly,
    /// `EBUSY`.
    Busy,
    /// `EAGAIN`: the transaction met a change of another client.
    Again,
    /// `EISCONN`.
    IsConnected,
    /// `E2BIG`: too long for a message, or the quota of watches.
    TooBig,
    /// `EPERM`: only the owner may do that.
    Perm,
}

/// Each error with its name and Linux's number (asm-generic/errno.h).
const ERRNOS: [(Errno, &str, i32); 16] = [
    (Errno::Invalid, "EINVAL", 22),
    (Errno::Access, "EACCES", 13),
    (Errno::Exists, "EEXIST", 17),
    (Errno::IsDirectory, "EISDIR", 21),
    (Errno::NoEnt, "ENOENT", 2),
    (Errno::NoMemory, "ENOMEM", 12),
    (Errno::NoSpace, "ENOSPC", 28),
    (Errno::Io, "EIO", 5),
    (Errno::NotEmpty, "ENOTEMPTY", 39),
    (Errno::NoSys, "ENOSYS", 38),
    (Errno::ReadOnly, "EROFS", 30),
    (Errno::Busy, "EBUSY", 16),
    (Errno::Again, "EAGAIN", 11),
    (Errno::IsConnected, "EISCONN", 106),
    (Errno::TooBig, "E2BIG", 7),
    (Errno::Perm, "EPERM", 1),
];

impl Errno {
    /// Parses the name on the wire.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        ERRNOS
            .iter()
            .find(|entry| entry.1.as_bytes() == name)
            .map(|entry| entry.0)
    }

    /// Converts Linux's number, with which a `write` on the device fails.
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        ERRNOS.iter().find(|entry| entry.2 == number).map(|entry| entry.0)
    }

    /// Returns the name on the wire, such as `ENOENT`.
    pub fn name(self) -> &'static str {
        ERRNOS
            .iter()
            .find(|entry| entry.0 == self)
            .map_or("EINVAL", |entry| entry.1)
    }

    #[cfg(feature = "xenstore-rs-traits")]
    fn io_kind(self) -> io::ErrorKind {
        match self {
            Self::Invalid | Self::TooBig => io::ErrorKind::InvalidInput,
            Self::Access | Self::Perm => io::ErrorKind::PermissionDenied,
            Self::Exists => io::ErrorKind::AlreadyExists,
            Self::IsDirectory => io::ErrorKind::IsADirectory,
            Self::NoEnt => io::ErrorKind::NotFound,
            Self::NoMemory => io::ErrorKind::OutOfMemory,
            Self::NoSpace => io::ErrorKind::QuotaExceeded,
            Self::Io | Self::IsConnected => io::ErrorKind::Other,
            Self::NotEmpty => io::ErrorKind::DirectoryNotEmpty,
            Self::NoSys => io::ErrorKind::Unsupported,
            Self::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            Self::Busy => io::ErrorKind::ResourceBusy,
            Self::Again => io::ErrorKind::WouldBlock,
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}
