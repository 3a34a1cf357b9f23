//! Errors of the journal.

use std::{
    io,
    path::{Path, PathBuf},
};

/// An error of the journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon has the journal open.
    #[error("{} is in use by another daemon", .0.display())]
    Locked(PathBuf),
    /// The name cannot be a file's: 1 to 128 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`, and no `.` first.
    #[error("{0:?} cannot be the name of a record")]
    Name(String),
    /// A record of that name exists already.
    #[error("record {0} exists already")]
    Exists(String),
    /// The caller's header or effect cannot be written as JSON.
    #[error("record {name}: cannot write an entry as JSON")]
    Entry {
        /// The record.
        name: String,
        /// The error of the serializer.
        source: serde_json::Error,
    },
    /// An entry to complete or release is not held.
    #[error("record {name}: entry {seq} is not held")]
    NotHeld {
        /// The record.
        name: String,
        /// The entry's number.
        seq: u64,
    },
    /// A record to end has held entries.
    #[error("record {name}: {held} entries are still held")]
    StillHeld {
        /// The record.
        name: String,
        /// The number of held entries.
        held: usize,
    },
    /// The kernel refused.
    #[error("cannot {what} {}", .path.display())]
    Io {
        /// The operation: `open`, `append to`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
}

impl Error {
    /// Returns whether there was no space left for the entry.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}
