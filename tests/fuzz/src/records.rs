//! Records of the journal, with any damage to their file.

use std::{cell::RefCell, fs};

use serde_json::Value;
use tempfile::TempDir;
use xenplug_journal::{Journal, Replay};

thread_local! {
    /// Directory in memory if possible.
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// Replays a record's file; after an initial `j` the bytes are its lines without checksums. The journal reads the
/// readable part and keeps the rest aside; a second replay finds the same and no damage; and the record takes further
/// entries.
pub(crate) fn check(bytes: &[u8]) {
    let sealed = bytes.strip_prefix(b"j").map(seal);
    let bytes = sealed.as_deref().unwrap_or(bytes);
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| {
            tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .expect("a folder")
        });
        let journal = Journal::open(folder.path()).expect("a journal");
        fs::write(folder.path().join("vbd-3-1.record"), bytes).expect("the folder is writable");
        let first: Replay<Value, Value> = journal.replay().expect("the file is readable");
        let again: Replay<Value, Value> = journal.replay().expect("the file is readable");
        assert!(
            again.aside.is_empty() && again.torn.is_empty(),
            "{:?} and {:?}",
            again.aside,
            again.torn
        );
        assert_eq!(first.records.len(), again.records.len());
        for (before, mut after) in first.records.into_iter().zip(again.records) {
            assert_eq!((&before.header, &before.held), (&after.header, &after.held));
            assert_eq!(before.note, after.note);
            after.record.note("on").expect("the record takes a note");
            for held in &after.held {
                after.record.released(held.seq).expect("the resource is held");
            }
            after.record.end().expect("no resource is held");
        }
        let left = fs::read_dir(folder.path()).expect("the folder exists").flatten();
        for entry in left.filter(|entry| entry.file_name() != ".lock") {
            let set_aside = fs::read(entry.path()).expect("the file is readable");
            assert_eq!(set_aside, bytes, "the file set aside differs from the damaged one");
            fs::remove_file(entry.path()).expect("the file is removable");
        }
    });
}

/// Adds checksums to lines. Bytes after the last newline are a torn line.
fn seal(lines: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let sum = crc32fast::hash(line.strip_suffix(b"\n").unwrap_or(line));
        sealed.extend_from_slice(format!("{sum:08x} ").as_bytes());
        sealed.extend_from_slice(line);
    }
    sealed
}
