//! What the records of an earlier daemon tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::de::DeserializeOwned;

use crate::{
    Error, Record, SUFFIX,
    line::{self, Entry},
};

/// What a journal holds at start-up.
#[derive(Debug)]
pub struct Replay<H, E> {
    /// The records, by name.
    pub records: Vec<Replayed<H, E>>,
    /// Files that were damaged, and kept under another name. One whose header could be read has its record as well.
    pub aside: Vec<Aside>,
    /// Records that were begun and have no whole header: nothing was done for them yet, and their files are removed.
    pub torn: Vec<String>,
}

/// One device's record.
#[derive(Debug)]
pub struct Replayed<H, E> {
    /// The name under which it was begun.
    pub name: String,
    /// Whose it is.
    pub header: H,
    /// What is held, oldest first: to be given back from its end.
    pub held: Vec<Held<E>>,
    /// The last remark.
    pub note: Option<String>,
    /// When it was begun.
    pub began: SystemTime,
    /// The record, to go on with.
    pub record: Record,
    /// Whether lines of it were lost, see [`Replay::aside`]: more may be held than is told here, and what is told may
    /// have been released.
    pub damaged: bool,
}

/// An effect that was made, or may have been, and was not undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held<E> {
    /// Its number.
    pub seq: u64,
    /// What it is: as intended, or as it turned out.
    pub effect: E,
    /// Whether it is known to have been made. Otherwise it may have been, wholly, in part or not at all.
    pub completed: bool,
    /// When it was intended.
    pub at: SystemTime,
}

/// A damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The name of its record.
    pub name: String,
    /// Where it is now.
    pub path: PathBuf,
    /// What is wrong with it, for people.
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

/// The records' names and files, sorted. What is not a record's file is left alone.
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

/// Gives a damaged file a second name that is free. It keeps the first until there is something to put in its place,
/// so that a crash between the two loses nothing.
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

/// Writes a record of sound lines alone, whole or not at all.
fn restore(path: &Path, lines: &[u8]) -> Result<(), Error> {
    let new = path.with_added_extension("new");
    fs::write(&new, lines)
        .and_then(|()| fs::rename(&new, path))
        .map_err(Error::io("write", path))
}

/// What one file says.
enum Contents<H, E> {
    /// Not even a header was written.
    Torn,
    /// It cannot be known whose it is.
    Unreadable(String),
    Readable(Readable<H, E>),
}

struct Readable<H, E> {
    header: H,
    began: SystemTime,
    held: BTreeMap<u64, Held<E>>,
    note: Option<String>,
    last: u64,
    /// The whole lines that say something.
    sound: Vec<u8>,
    /// What is wrong with the others.
    damage: Option<String>,
}

impl<H: DeserializeOwned, E: DeserializeOwned> Contents<H, E> {
    fn read(bytes: &[u8]) -> Self {
        // What follows the last newline is a line that was not written to its end: it never happened.
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
                    Err(error) => return Self::Unreadable(format!("line 1: {}", line::Error::Meaning(error))),
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
        // Unless it is whole, and it is the newline that is wrong.
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
        let at = line.at();
        let parse = |effect| E::deserialize(effect).map_err(|error| line::Error::Meaning(error).to_string());
        match line.entry {
            Entry::Header(_) => return Err("it is a second header".into()),
            Entry::Intent(effect) => {
                let held = Held {
                    seq: line.n,
                    effect: parse(effect)?,
                    completed: false,
                    at,
                };
                self.held.insert(line.n, held);
            }
            Entry::Completed(seq, effect) => {
                // Where the intent's own line was lost, this one still tells what is held.
                let at = self.held.get(&seq).map_or(at, |held| held.at);
                self.held.insert(
                    seq,
                    Held {
                        seq,
                        effect: parse(effect)?,
                        completed: true,
                        at,
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
        let record = Record::resume(path, name.clone(), self.sound.len() as u64, self.last, seqs)?;
        Ok(Replayed {
            name,
            header: self.header,
            held: self.held.into_values().collect(),
            note: self.note,
            began: self.began,
            record,
            damaged: self.damage.is_some(),
        })
    }
}
