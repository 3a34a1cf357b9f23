//! The record of one device, open for appending.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use serde::Serialize;

use crate::{
    error::Error,
    line::{Entry, Line},
};

/// The end of the name of a record's file.
pub(crate) const SUFFIX: &str = ".record";

/// The longest note, in bytes; the rest is cut off.
const NOTE_MAX: usize = 4096;

/// The record of one device. It stays on disk when it is dropped; only [`Record::end`] removes it.
#[derive(Debug)]
pub struct Record {
    name: String,
    path: PathBuf,
    file: File,
    /// Bytes of whole lines in the file.
    length: u64,
    /// True if the file may hold more than that, because a failed write could not be cut off.
    dirty: bool,
    /// The last line's number.
    last: u64,
    held: BTreeSet<u64>,
    buffer: Vec<u8>,
}

impl Record {
    /// Creates a file whose first line is the header. A crash in between leaves a file without a whole line, which the
    /// next replay removes.
    pub(crate) fn begin<H: Serialize>(path: PathBuf, name: &str, header: &H) -> Result<Self, Error> {
        let file = append()
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => Error::Exists(name.to_owned()),
                _ => Error::Io {
                    what: "create",
                    path: path.clone(),
                    source,
                },
            })?;
        let mut record = Self {
            name: name.to_owned(),
            path,
            file,
            length: 0,
            dirty: false,
            last: 0,
            held: BTreeSet::new(),
            buffer: Vec::new(),
        };
        match record.append(Entry::Header(header)) {
            Ok(_) => Ok(record),
            Err(error) => {
                // A file that cannot be removed now is removed by the next replay.
                let _ = fs::remove_file(&record.path);
                Err(error)
            }
        }
    }

    /// Opens a file of whole lines to go on.
    pub(crate) fn resume(
        path: PathBuf,
        name: String,
        length: u64,
        last: u64,
        held: BTreeSet<u64>,
    ) -> Result<Self, Error> {
        let file = append().open(&path).map_err(Error::io("open", &path))?;
        let mut record = Self {
            name,
            path,
            file,
            length,
            dirty: true,
            last,
            held,
            buffer: Vec::new(),
        };
        record.cut()?;
        Ok(record)
    }

    /// The number of held effects.
    pub fn holds(&self) -> usize {
        self.held.len()
    }

    /// The number that the next line will have.
    pub fn next(&self) -> u64 {
        self.last + 1
    }

    /// Writes that an effect is going to be made, and returns the number by which it is completed and released. From
    /// here on it is held. After an error the effect must not be made.
    pub fn intent<E: Serialize>(&mut self, effect: &E) -> Result<u64, Error> {
        let seq = self.append(Entry::Intent(effect))?;
        self.held.insert(seq);
        Ok(seq)
    }

    /// Writes that an effect was made, and its outcome: the loop device, for example. After an error the next daemon
    /// knows only the intent, so the effect had better be undone.
    pub fn completed<E: Serialize>(&mut self, seq: u64, effect: &E) -> Result<(), Error> {
        if !self.held.contains(&seq) {
            return Err(self.not_held(seq));
        }
        self.append(Entry::Completed(seq, effect)).map(drop)
    }

    /// Writes that an effect was undone. It is no longer held, also after an error of the kernel: then the next daemon
    /// undoes it once more, which must be harmless.
    pub fn released(&mut self, seq: u64) -> Result<(), Error> {
        if !self.held.remove(&seq) {
            return Err(self.not_held(seq));
        }
        self.append::<()>(Entry::Released(seq)).map(drop)
    }

    /// Writes a note for the next daemon, in the place of the one before. At most 4096 bytes of it are kept.
    pub fn note(&mut self, text: &str) -> Result<(), Error> {
        let end = text.floor_char_boundary(NOTE_MAX);
        self.append::<()>(Entry::Note(text[..end].into())).map(drop)
    }

    /// Removes the record of a device that holds nothing.
    ///
    /// Errors: [`Error::StillHeld`], [`Error::Io`]; the file is then still there, for another try or the next replay.
    pub fn end(&self) -> Result<(), Error> {
        if !self.held.is_empty() {
            return Err(Error::StillHeld {
                name: self.name.clone(),
                held: self.held.len(),
            });
        }
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &self.path)(source)),
            _ => Ok(()),
        }
    }

    fn append<E: Serialize>(&mut self, entry: Entry<'_, E>) -> Result<u64, Error> {
        self.cut()?;
        let n = self.last + 1;
        Line::new(n, entry)
            .write(&mut self.buffer)
            .map_err(|source| Error::Entry {
                name: self.name.clone(),
                source,
            })?;
        // One write(2), unless the kernel takes less of it. A replay ignores half a line.
        if let Err(source) = self.file.write_all(&self.buffer) {
            self.dirty = true;
            // The rest of the line must not stay in front of the next one. If it cannot be cut off now, the next append
            // tries again.
            let _ = self.cut();
            return Err(Error::Io {
                what: "append to",
                path: self.path.clone(),
                source,
            });
        }
        self.last = n;
        self.length += self.buffer.len() as u64;
        Ok(n)
    }

    /// Cuts off the rest of a failed write.
    fn cut(&mut self) -> Result<(), Error> {
        if self.dirty {
            self.file.set_len(self.length).map_err(Error::io("cut", &self.path))?;
            self.dirty = false;
        }
        Ok(())
    }

    fn not_held(&self, seq: u64) -> Error {
        Error::NotHeld {
            name: self.name.clone(),
            seq,
        }
    }
}

fn append() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true);
    options
}
