//! One line of a record: checksum, space, JSON, newline.

use std::{
    borrow::Cow,
    io::Write,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Eight hexadecimal digits and a space.
const PREFIX: usize = 9;

/// The content of a line. `E` is the caller's type: a header in the first line, an effect in the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Entry<'a, E> {
    /// The first line, and only that.
    Header(E),
    /// An effect is going to be made; the line's number is its own.
    Intent(E),
    /// The effect of that number was made, with this outcome.
    Completed(u64, E),
    /// The effect of that number was undone.
    Released(u64),
    /// A note for the next daemon.
    Note(#[serde(borrow)] Cow<'a, str>),
}

/// A line with its number and its time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line<'a, E> {
    /// Larger than that of any line before it.
    pub(crate) n: u64,
    /// Microseconds since the epoch.
    t: u64,
    #[serde(rename = "e", borrow)]
    pub(crate) entry: Entry<'a, E>,
}

impl<'a, E> Line<'a, E> {
    pub(crate) fn new(n: u64, entry: Entry<'a, E>) -> Self {
        let t = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros() as u64;
        Self { n, t, entry }
    }

    pub(crate) fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.t)
    }
}

impl<E: Serialize> Line<'_, E> {
    /// Writes the line into a buffer, in place of what was in it.
    pub(crate) fn write(&self, buffer: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        buffer.clear();
        buffer.extend_from_slice(b"00000000 ");
        serde_json::to_writer(&mut *buffer, self)?;
        let sum = crc32fast::hash(&buffer[PREFIX..]);
        // Eight digits fit into the eight bytes that they replace.
        let _ = write!(&mut buffer[..PREFIX - 1], "{sum:08x}");
        buffer.push(b'\n');
        Ok(())
    }
}

/// A line that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it cannot be understood: {0}")]
    Content(serde_json::Error),
}

/// Reads a line, without its newline. The effect stays text, so that one of an unknown kind still has its number.
pub(crate) fn read(text: &[u8]) -> Result<Line<'_, &RawValue>, Error> {
    let (prefix, json) = text.split_at_checked(PREFIX).ok_or(Error::Checksum)?;
    if prefix != format!("{:08x} ", crc32fast::hash(json)).as_bytes() {
        return Err(Error::Checksum);
    }
    serde_json::from_slice(json).map_err(Error::Content)
}
