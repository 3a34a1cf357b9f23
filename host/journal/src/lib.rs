//! A record of the effects that each device holds, written before and after every effect on the host.
//!
//! A [`Journal`] is a directory with one file per device. Before an effect is made its *intent* is written, after it
//! its *completion*, and when it is undone its *release*. An effect that is intended or completed and not released is
//! *held*, and [`Journal::replay`] finds it again after a crash, in the order of the intents; the daemon releases in
//! reverse. A header and an effect can be anything that serde writes as JSON.
//!
//! # On disk
//! `NAME.record` holds one line per entry: the CRC-32 of the rest in eight hexadecimal digits, a space, one JSON object
//! with a running number `n`, a newline. The first is the header. Every line is one `write(2)` to a descriptor in
//! append mode, some microseconds on a tmpfs.
//!
//! Nothing is ever synced: the directory belongs on a tmpfs (`/run/xenplug/journal`), a crash of the daemon loses
//! nothing that was written, and the effects (loop devices, links, rules, processes) do not survive a reboot any more
//! than their records do.
//!
//! # Failures
//! - **A torn tail**: a crash in the middle of a write leaves a last line without its newline, which is cut off. A file
//!   without a whole header is that of a device for which nothing was done yet.
//! - **No space** ([`Error::is_full`]) fails closed: the entry is not there, a part of it is cut off, and the effect
//!   must not be made.
//! - **Damage**, a line with a wrong checksum or unknown content: the file is set aside as `NAME.record.damaged`, its
//!   sound lines go on in a new one, and both are reported. Nothing is deleted unseen.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on ends"))]

mod error;
mod journal;
mod line;
mod record;
mod replay;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use journal::Journal;
pub use record::Record;
pub use replay::{Aside, Held, Replay, Replayed};
