//! Reads the records of an earlier daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::de::DeserializeOwned;

use crate::{
    error::Error,
    line::{self, Entry},
    record::{Record, SUFFIX},
};

/// The content of a journal at start-up.
#[derive(Debug)]
pub struct Replay<H, E> {
    /// The records, by name.
    pub records: Vec<Replayed<H, E>>,
    /// Damaged files, kept under another name. A file with a sound header has its record as well: more may be held than
    /// that says, and some of it may have been released.
    pub aside: Vec<Aside>,
    /// Names of records without a whole header: nothing was done for them yet, and their files are removed.
    pub torn: Vec<String>,
}

/// One device's record.
#[derive(Debug)]
pub struct Replayed<H, E> {
    /// The header.
    pub header: H,
    /// The held effects, oldest first: to be released from the end.
    pub held: Vec<Held<E>>,
    /// The last note.
    pub note: Option<String>,
    /// The time of the header.
    pub began: SystemTime,
    /// The record, open to go on.
    pub record: Record,
}

/// An effect that was made, or may have been, and was not undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held<E> {
    /// The number of its intent.
    pub seq: u64,
    /// The effect as intended, or its outcome.
    pub effect: E,
    /// True if it is known to have been made. Otherwise it may have been, wholly, in part or not at all.
    pub completed: bool,
}

/// A damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The name of its record.
    pub name: String,
    /// The file's path now.
    pub path: PathBuf,
    /// The damage, for people.
    pub cause: String,
}

pub(crate) fn replay<H: DeserializeOwned, E: DeserializeOwned>(dir: &Path) -> Result<Replay<H, E>, Error> {
    let mut replay = Replay {
        records: Vec::new(),
        aside: Vec::new(),
        torn: Vec::new(),
    };
    for (name, file) in files(dir)? {
        let path = dir.join(&file);
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        match Contents::<H, E>::read(&bytes) {
            Contents::Torn => {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                replay.torn.push(name);
            }
            Contents::Unreadable(cause) => {
                let aside = keep_aside(&path)?;
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                replay.aside.push(Aside {
                    name,
                    path: aside,
                    cause,
                });
            }
            Contents::Readable(read) => {
                if let Some(cause) = &read.damage {
                    let aside = keep_aside(&path)?;
                    restore(&path, &read.sound)?;
                    replay.aside.push(Aside {
                        name: name.clone(),
                        path: aside,
                        cause: cause.clone(),
                    });
                }
                replay.records.push(read.resume(name, path)?);
            }
        }
    }
    Ok(replay)
}

/// The names and files of the records, sorted. Other files are left alone.
fn files(dir: &Path) -> Result<BTreeMap<String, String>, Error> {
    let mut files = BTreeMap::new();
    let entries = loop {
        match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            entries => break entries.map_err(Error::io("read", dir))?,
        }
    };
    for entry in entries {
        let entry = entry.map_err(Error::io("read", dir))?;
        let Ok(file) = entry.file_name().into_string() else {
            continue;
        };
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        if let Some(name) = file.strip_suffix(SUFFIX).filter(|name| !name.is_empty()) {
            files.insert(name.to_owned(), file);
        }
    }
    Ok(files)
}

/// Gives a damaged file a second, free name. The file keeps the first until another takes its place, so that a crash
/// between the two loses nothing.
fn keep_aside(path: &Path) -> Result<PathBuf, Error> {
    for count in 0.. {
        let extension = if count == 0 {
            "damaged".to_owned()
        } else {
            format!("damaged.{count}")
        };
        let aside = path.with_added_extension(extension);
        match fs::hard_link(path, &aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(Error::Io {
                    what: "set aside",
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
    unreachable!("a directory does not hold as many files as there are numbers")
}

/// Writes a record of the sound lines alone, whole or not at all.
fn restore(path: &Path, lines: &[u8]) -> Result<(), Error> {
    let new = path.with_added_extension("new");
    fs::write(&new, lines)
        .and_then(|()| fs::rename(&new, path))
        .map_err(Error::io("write", path))
}

/// The content of one file.
enum Contents<H, E> {
    /// No whole line.
    Torn,
    /// No sound header.
    Unreadable(String),
    Readable(Readable<H, E>),
}

struct Readable<H, E> {
    header: H,
    began: SystemTime,
    held: BTreeMap<u64, Held<E>>,
    note: Option<String>,
    last: u64,
    /// The sound lines.
    sound: Vec<u8>,
    /// The damage of the others.
    damage: Option<String>,
}

impl<H: DeserializeOwned, E: DeserializeOwned> Contents<H, E> {
    fn read(bytes: &[u8]) -> Self {
        // After the last newline is a line that was not written to its end: its effect never happened.
        let Some(end) = bytes.iter().rposition(|b| *b == b'\n') else {
            return Self::Torn;
        };
        let tail = &bytes[end + 1..];
        let mut lines = bytes[..end].split(|b| *b == b'\n');
        // A split yields one part at least.
        let first = lines.next().unwrap_or_default();
        let (header, began, n) = match line::read(first) {
            Ok(line) => match (&line.entry, line.at()) {
                (Entry::Header(text), began) => match H::deserialize(*text) {
                    Ok(header) => (header, began, line.n),
                    Err(error) => return Self::Unreadable(format!("line 1: {}", line::Error::Content(error))),
                },
                _ => return Self::Unreadable("line 1: it is not a header".into()),
            },
            Err(error) => return Self::Unreadable(format!("line 1: {error}")),
        };
        let mut sound = first.to_vec();
        sound.push(b'\n');
        let mut read = Readable {
            header,
            began,
            held: BTreeMap::new(),
            note: None,
            last: n,
            sound,
            damage: None,
        };
        for (index, text) in lines.enumerate() {
            if let Err(cause) = read.take(text) {
                read.damage
                    .get_or_insert_with(|| format!("line {}: {cause}", index + 2));
            }
        }
        // Unless the line is whole, and only its newline is wrong.
        if let Some((_, text)) = tail.split_last()
            && read.take(text).is_ok()
        {
            read.damage
                .get_or_insert_with(|| "the last line: it ends in no newline".into());
        }
        Self::Readable(read)
    }
}

impl<H, E: DeserializeOwned> Readable<H, E> {
    fn take(&mut self, text: &[u8]) -> Result<(), String> {
        let line = line::read(text).map_err(|error| error.to_string())?;
        if line.n <= self.last {
            return Err(format!("its number {} is not above {}", line.n, self.last));
        }
        let parse = |effect| E::deserialize(effect).map_err(|error| line::Error::Content(error).to_string());
        match line.entry {
            Entry::Header(_) => return Err("it is a second header".into()),
            Entry::Intent(effect) => {
                let held = Held {
                    seq: line.n,
                    effect: parse(effect)?,
                    completed: false,
                };
                self.held.insert(line.n, held);
            }
            Entry::Completed(seq, effect) => {
                // This line tells the held effect even if that of the intent was lost.
                self.held.insert(
                    seq,
                    Held {
                        seq,
                        effect: parse(effect)?,
                        completed: true,
                    },
                );
            }
            Entry::Released(seq) => {
                self.held.remove(&seq);
            }
            Entry::Note(text) => self.note = Some(text.into_owned()),
        }
        self.last = line.n;
        self.sound.extend_from_slice(text);
        self.sound.push(b'\n');
        Ok(())
    }

    fn resume(self, name: String, path: PathBuf) -> Result<Replayed<H, E>, Error> {
        let seqs: BTreeSet<u64> = self.held.keys().copied().collect();
        let record = Record::resume(path, name, self.sound.len() as u64, self.last, seqs)?;
        Ok(Replayed {
            header: self.header,
            held: self.held.into_values().collect(),
            note: self.note,
            began: self.began,
            record,
        })
    }
}
