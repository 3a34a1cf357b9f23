//! Records of the journal, after whatever has become of their file.

use std::{cell::RefCell, fs};

use serde_json::Value;
use tempfile::TempDir;
use xenplug_journal::{Journal, Replay};

thread_local! {
    /// A folder in memory, if there is one.
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// The bytes are a record's file; where they begin with `j` they are its lines without checksums. What can be read of it is read, the rest is kept; a second reading finds the same, and
/// nothing wrong; and the record goes on.
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
        fs::write(folder.path().join("vbd-3-1.record"), bytes).expect("it is written");
        let first: Replay<Value, Value> = journal.replay().expect("it can be read");
        let again: Replay<Value, Value> = journal.replay().expect("it can be read");
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
            after.record.note("on").expect("it goes on");
            for held in &after.held {
                after.record.released(held.seq).expect("it is held");
            }
            after.record.end().expect("nothing is held");
        }
        let left = fs::read_dir(folder.path()).expect("it is there").flatten();
        for entry in left.filter(|entry| entry.file_name() != ".lock") {
            let kept = fs::read(entry.path()).expect("it can be read");
            assert_eq!(kept, bytes, "what was kept of a damaged file is another");
            fs::remove_file(entry.path()).expect("it can be removed");
        }
    });
}

/// Lines with their checksums. What follows the last newline is a line that was not written to its end.
fn seal(lines: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let sum = crc32fast::hash(line.strip_suffix(b"\n").unwrap_or(line));
        sealed.extend_from_slice(format!("{sum:08x} ").as_bytes());
        sealed.extend_from_slice(line);
    }
    sealed
}
