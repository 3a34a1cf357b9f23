//! A record of what each device holds, written before and after every effect on the machine.
//!
//! A [`Journal`] is a directory with one file per device. Before an effect is made its *intent* is written, after it
//! its *completion*, and when it is undone its *release*. What is intended or completed and not released is *held*, and
//! [`Journal::replay`] finds it again after a crash, in the order in which it came about; it is to be given back in
//! reverse. What a header and an effect are, their owner decides: anything that serde can write as JSON.
//!
//! # On disk
//! `NAME.record` holds one line per entry: the CRC-32 of the rest in eight hexadecimal digits, a space, one JSON object
//! with a running number `n`, a newline. The first is the header. Every line is one `write(2)` to a descriptor in
//! append mode, some microseconds on a tmpfs.
//!
//! Nothing is ever synced: the directory belongs on a tmpfs (`/run/xenplug/journal`), a crash of the daemon loses
//! nothing that was written, and what the records describe (loop devices, links, rules, processes) does not survive a
//! reboot any more than they do.
//!
//! # What can go wrong
//! - **A torn tail**, a last line without its newline, is what a crash in the middle of a write leaves: it never
//!   happened, and is cut off. A file without a whole header is of a device for which nothing was done yet.
//! - **No space** ([`Error::is_full`]) fails closed: the entry is not there, what was written of it is cut off, and the
//!   effect must not be made.
//! - **Damage**, a line whose checksum or meaning is wrong: the file is kept aside as `NAME.record.damaged`, what could
//!   be read of it goes on in a new one, and both are reported. Nothing is deleted unseen.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on ends"))]

mod line;
mod record;
mod replay;

#[cfg(test)]
mod tests;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

pub use record::Record;
pub use replay::{Aside, Held, Replay, Replayed};

/// What ends the name of a record's file.
const SUFFIX: &str = ".record";

/// The longest name of a record, in bytes: room for [`SUFFIX`] and what setting aside adds in a file name of 255.
const NAME_MAX: usize = 128;

/// How long the lock is waited for, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(2);
const MOMENT: Duration = Duration::from_millis(10);

/// Why the journal could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon has the journal open.
    #[error("{} is in use by another daemon", .0.display())]
    Locked(PathBuf),
    /// The name cannot be a file's: 1 to 128 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`, and no `.` first.
    #[error("{0:?} cannot be the name of a record")]
    Name(String),
    /// There is a record of that name already.
    #[error("there is a record {0} already")]
    Exists(String),
    /// The caller's header or effect cannot be written as JSON.
    #[error("record {name}: an entry cannot be written as JSON: {source}")]
    Entry {
        /// The record.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An entry is completed or released that is not held.
    #[error("record {name}: entry {seq} is not held")]
    NotHeld {
        /// The record.
        name: String,
        /// The entry's number.
        seq: u64,
    },
    /// A record is to be ended while something is held.
    #[error("record {name}: {held} entries are held still")]
    StillHeld {
        /// The record.
        name: String,
        /// How many.
        held: usize,
    },
    /// The kernel refused.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was tried: `open`, `append to`.
        what: &'static str,
        /// Of which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// Whether there was no space left for the entry.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// A directory of records that this process alone writes.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// Locked for as long as it is open, and by this process alone: a child does not inherit it, once it has become another
    /// program.
    _lock: File,
}

impl Journal {
    /// Opens a directory, made with its parents and with mode 0700 if need be, and locks it.
    ///
    /// Errors: [`Error::Locked`] if another daemon has it open, [`Error::Io`]. For a daemon that has just been killed it
    /// waits: a child that this one had forked, and that has not become its program yet, keeps the lock for that long.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(Error::io("create", dir))?;
        // Also where it was there before, with whatever mode: only its owner may change it, which this proves to be us.
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(Error::io("set the mode of", dir))?;
        let path = dir.join(".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let until = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(MOMENT),
                Err(TryLockError::WouldBlock) => return Err(Error::Locked(dir.to_owned())),
                Err(TryLockError::Error(source)) => {
                    return Err(Error::Io {
                        what: "lock",
                        path,
                        source,
                    });
                }
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// Begins the record of a device. `name` is `vbd-3-51712` or the like; `header` says whose it is.
    ///
    /// Errors: [`Error::Name`], [`Error::Exists`], [`Error::Entry`], [`Error::Io`]. After an error there is no record.
    pub fn begin<H: Serialize>(&self, name: &str, header: &H) -> Result<Record, Error> {
        Record::begin(self.path_of(name)?, name, header)
    }

    /// Reads every record, and opens them to go on. To be called once, before anything is begun.
    ///
    /// Damage is no error: see [`Replay`]. Errors: [`Error::Io`] if the directory or a file cannot be read.
    pub fn replay<H: DeserializeOwned, E: DeserializeOwned>(&self) -> Result<Replay<H, E>, Error> {
        replay::replay(&self.dir)
    }

    fn path_of(&self, name: &str) -> Result<PathBuf, Error> {
        let fits = matches!(name.len(), 1..=NAME_MAX)
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if fits {
            Ok(self.dir.join(format!("{name}{SUFFIX}")))
        } else {
            Err(Error::Name(name.chars().take(64).collect()))
        }
    }
}
