//! The directory of records, locked by one daemon.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::Error,
    record::{Record, SUFFIX},
    replay::{self, Replay},
};

/// The longest name of a record, in bytes. A file name of 255 has room for the suffix and for what setting aside adds.
const NAME_MAX: usize = 128;

/// Time that the daemon before may take to release the lock.
const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// Interval between tries of the lock. A blocking flock(2) has no deadline, and no thread is worth this wait at
/// start-up.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// A directory of records that only this process writes.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// Locked for as long as it is open. A child loses it as it becomes another program.
    _lock: File,
}

impl Journal {
    /// Opens a directory, creates it with its parents and with mode 0700 if need be, and locks it.
    ///
    /// Errors: [`Error::Locked`] if another daemon has it open, [`Error::Io`]. A daemon that has just been killed may
    /// have forked a child, which keeps the lock until it becomes its program: this waits for it.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(Error::io("create", dir))?;
        // Also for a directory that was there before: only its owner may change the mode, which proves the owner to be
        // us.
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(Error::io("set the mode of", dir))?;
        let path = dir.join(".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let until = Instant::now() + LOCK_LIMIT;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOCK_POLL),
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

    /// Begins the record of a device. `name` is `vbd-3-51712` or the like.
    ///
    /// Errors: [`Error::Name`], [`Error::Exists`], [`Error::Entry`], [`Error::Io`]. After an error there is no record.
    pub fn begin<H: Serialize>(&self, name: &str, header: &H) -> Result<Record, Error> {
        Record::begin(self.path_of(name)?, name, header)
    }

    /// Reads all records, and opens them to go on. To be called once, before any record is begun.
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
