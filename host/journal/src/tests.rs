//! Records and their damage.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::*;

mod random;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    vm: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Effect {
    Loop { number: Option<u32>, file: String },
    Link(String),
}

const NAME: &str = "vbd-3-51712";

fn header() -> Header {
    Header {
        vm: Some("/vm/1".into()),
    }
}

fn attach(number: Option<u32>) -> Effect {
    Effect::Loop {
        number,
        file: "/images/a \"b\"\n\u{1b}ü.img".into(),
    }
}

fn link(name: &str) -> Effect {
    Effect::Link(name.into())
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("vbd-3-51712.record")
}

fn replay(dir: &Path) -> Replay<Header, Effect> {
    Journal::open(dir).unwrap().replay().unwrap()
}

/// The only record of a sound journal.
#[track_caller]
fn replay_one(dir: &Path) -> Replayed<Header, Effect> {
    let mut replay = replay(dir);
    assert!(replay.aside.is_empty() && replay.torn.is_empty(), "{replay:?}");
    assert_eq!(replay.records.len(), 1);
    replay.records.remove(0)
}

fn effects(held: &[Held<Effect>]) -> Vec<(u64, Effect, bool)> {
    held.iter()
        .map(|held| (held.seq, held.effect.clone(), held.completed))
        .collect()
}

/// A record in which everything occurs once: of a loop device, and of a link that was released.
fn write_one(dir: &Path) -> Vec<u8> {
    let journal = Journal::open(dir).unwrap();
    let mut record = journal.begin(NAME, &header()).unwrap();
    let first = record.intent(&attach(None)).unwrap();
    let second = record.intent(&link("vif3.0")).unwrap();
    record.completed(first, &attach(Some(7))).unwrap();
    record.completed(second, &link("vif3.0")).unwrap();
    record.note("connected").unwrap();
    record.released(second).unwrap();
    fs::read(path_in(dir)).unwrap()
}

#[test]
fn effect_that_is_not_released_is_held_oldest_first() {
    let dir = TempDir::new().unwrap();
    let before = std::time::SystemTime::now() - std::time::Duration::from_millis(1);
    let journal = Journal::open(dir.path()).unwrap();
    let mut record = journal.begin(NAME, &header()).unwrap();
    let seqs = ["a", "b", "c", "d"].map(|name| record.intent(&link(name)).unwrap());
    record.completed(seqs[2], &attach(Some(1))).unwrap();
    record.completed(seqs[0], &link("A")).unwrap();
    record.released(seqs[1]).unwrap();
    record.note("first").unwrap();
    record.note("connected").unwrap();
    assert_eq!(record.holds(), 3);
    drop((journal, record));

    let replayed = replay_one(dir.path());
    assert_eq!(replayed.header, header());
    let expected = vec![
        (seqs[0], link("A"), true),
        (seqs[2], attach(Some(1)), true),
        (seqs[3], link("d"), false),
    ];
    assert_eq!(effects(&replayed.held), expected);
    assert_eq!(replayed.note.as_deref(), Some("connected"));
    assert_eq!(replayed.record.holds(), 3);
    assert!(replayed.began >= before, "{:?}", replayed.began);
}

#[test]
fn replayed_record_goes_on_where_it_was() {
    let dir = TempDir::new().unwrap();
    write_one(dir.path());
    let Replayed { mut record, held, .. } = replay_one(dir.path());
    let next = record.intent(&link("next")).unwrap();
    assert!(next > held[0].seq);
    record.released(held[0].seq).unwrap();
    drop(record);
    let Replayed { mut record, held, .. } = replay_one(dir.path());
    assert_eq!(effects(&held), [(next, link("next"), false)]);
    record.released(next).unwrap();
    record.end().unwrap();
    assert!(replay(dir.path()).records.is_empty());
}

#[test]
fn entries_before_a_cut_count_and_none_after() {
    let dir = TempDir::new().unwrap();
    let bytes = write_one(dir.path());
    let ends: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at] == b'\n')
        .map(|at| at + 1)
        .collect();
    assert_eq!(ends.len(), 7);
    let [first, second] = [2, 3];
    // The held effects after so many whole lines.
    let held = |lines: usize| match lines {
        1 => vec![],
        2 => vec![(first, attach(None), false)],
        3 => vec![(first, attach(None), false), (second, link("vif3.0"), false)],
        4 => vec![(first, attach(Some(7)), true), (second, link("vif3.0"), false)],
        5 | 6 => vec![(first, attach(Some(7)), true), (second, link("vif3.0"), true)],
        _ => vec![(first, attach(Some(7)), true)],
    };
    for cut in 0..=bytes.len() {
        fs::write(path_in(dir.path()), &bytes[..cut]).unwrap();
        let lines = ends.iter().filter(|end| **end <= cut).count();
        if lines == 0 {
            let replay = replay(dir.path());
            assert_eq!(replay.torn, [NAME]);
            assert!(replay.records.is_empty() && !path_in(dir.path()).exists());
            continue;
        }
        let mut replayed = replay_one(dir.path());
        assert_eq!(effects(&replayed.held), held(lines), "cut at {cut}");
        assert_eq!(replayed.note.is_some(), lines >= 6);
        // The next line is whole.
        let seq = replayed.record.intent(&link("after")).unwrap();
        drop(replayed);
        let last = replay_one(dir.path()).held.pop().unwrap();
        assert_eq!((last.seq, last.effect), (seq, link("after")));
    }
}

#[test]
fn flipped_bit_is_noticed_and_costs_no_other_line() {
    let dir = TempDir::new().unwrap();
    let bytes = write_one(dir.path());
    let journal = Journal::open(dir.path()).unwrap();
    let replay = || journal.replay::<Header, Effect>().unwrap();
    let end_of_header = bytes.iter().position(|b| *b == b'\n').unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(path_in(dir.path()), &flipped).unwrap();
        let mut found = replay();
        assert_eq!((found.aside.len(), found.torn.len()), (1, 0), "bit {bit}");
        let aside = found.aside.remove(0);
        assert_eq!((aside.name.as_str(), fs::read(&aside.path).unwrap()), (NAME, flipped));
        fs::remove_file(aside.path).unwrap();
        if bit / 8 <= end_of_header {
            assert!(found.records.is_empty() && !path_in(dir.path()).exists());
            continue;
        }
        let replayed = found.records.remove(0);
        assert_eq!(replayed.header, header());
        // The loop device's two lines are 2 and 4: no one flip hides it.
        assert_eq!(replayed.held[0].seq, 2);
        let sound = fs::read(path_in(dir.path())).unwrap();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
        assert!(
            sound.split_inclusive(|b| *b == b'\n').all(|line| lines.contains(&line)),
            "bit {bit}"
        );
        drop(replayed);
        // The rest is sound, and a second replay finds the same.
        let again = replay();
        assert_eq!((again.aside.len(), again.records[0].held[0].seq), (0, 2));
        fs::remove_file(path_in(dir.path())).unwrap();
    }
}

#[test]
fn damaged_file_is_never_replaced_by_the_next() {
    let dir = TempDir::new().unwrap();
    let mut kept = Vec::new();
    for _ in 0..3 {
        fs::write(path_in(dir.path()), b"no record\n").unwrap();
        let replay = replay(dir.path());
        assert!(replay.aside[0].cause.starts_with("line 1: "), "{replay:?}");
        kept.push(replay.aside[0].path.clone());
    }
    kept.dedup();
    assert_eq!(
        kept.iter()
            .filter(|path| fs::read(path).unwrap() == b"no record\n")
            .count(),
        3
    );
}

#[test]
fn unknown_effect_is_reported_and_the_rest_is_kept() {
    #[derive(Serialize)]
    enum Older {
        Gone(u32),
    }
    let dir = TempDir::new().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let mut record = journal.begin(NAME, &header()).unwrap();
    record.intent(&Older::Gone(1)).unwrap();
    let seq = record.intent(&link("known")).unwrap();
    drop((journal, record));
    let replay = replay(dir.path());
    assert!(
        replay.aside[0].cause.starts_with("line 2: it cannot be understood"),
        "{:?}",
        replay.aside
    );
    assert_eq!(effects(&replay.records[0].held), [(seq, link("known"), false)]);
}

#[test]
fn repeated_line_is_damage() {
    let dir = TempDir::new().unwrap();
    let bytes = write_one(dir.path());
    let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
    // The intent of an effect that was released since; a second header.
    for again in [lines[2], lines[0]] {
        fs::write(path_in(dir.path()), [&bytes, again].concat()).unwrap();
        let replay = replay(dir.path());
        assert!(replay.aside[0].cause.starts_with("line 8: "), "{:?}", replay.aside);
        assert_eq!(effects(&replay.records[0].held), [(2, attach(Some(7)), true)]);
        assert_eq!(fs::read(path_in(dir.path())).unwrap(), bytes);
    }
}

#[test]
fn second_daemon_is_refused() {
    let dir = TempDir::new().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let error = Journal::open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Locked(path) if path == dir.path()), "{error:?}");
    assert!(error.to_string().ends_with("is in use by another daemon"));
    drop(journal);
    Journal::open(dir.path()).unwrap();
}

#[test]
fn open_waits_for_the_child_of_a_killed_daemon() {
    let dir = TempDir::new().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let ends = std::thread::spawn(move || {
        sleep(Duration::from_millis(300));
        drop(journal);
    });
    Journal::open(dir.path()).unwrap();
    ends.join().unwrap();
}

#[test]
fn directory_and_files_are_for_their_owner_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("run/journal");
    Journal::open(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
    write_one(&path);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(
        (mode(&path), mode(&path_in(&path)), mode(&path.join(".lock"))),
        (0o700, 0o600, 0o600)
    );
}

#[test]
fn impossible_directory_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Journal::open(&file.join("journal")).unwrap_err();
    assert!(error.to_string().contains("file/journal"), "{error}");
}

#[test]
fn name_that_could_lead_elsewhere_is_refused() {
    let dir = TempDir::new().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for bad in [
        "",
        ".",
        "..",
        ".lock",
        "../x",
        "a/b",
        "a\0b",
        "a b",
        "a\n",
        "ü",
        &"n".repeat(129),
    ] {
        assert!(matches!(journal.begin(bad, &header()), Err(Error::Name(_))), "{bad:?}");
    }
    journal.begin(&"n".repeat(128), &header()).unwrap();
}

#[test]
fn record_is_begun_once_and_ends_with_nothing_held() {
    let dir = TempDir::new().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let mut record = journal.begin(NAME, &header()).unwrap();
    assert!(matches!(journal.begin(NAME, &header()), Err(Error::Exists(name)) if name == NAME));
    let seq = record.intent(&link("a")).unwrap();
    assert!(matches!(
        record.completed(seq + 1, &link("a")),
        Err(Error::NotHeld { .. })
    ));
    assert!(matches!(record.end(), Err(Error::StillHeld { held: 1, .. })));

    let mut record = replay_one_of(&journal);
    record.released(seq).unwrap();
    assert!(matches!(record.released(seq), Err(Error::NotHeld { .. })));
    assert!(matches!(record.completed(seq, &link("a")), Err(Error::NotHeld { .. })));
    record.end().unwrap();
    journal.begin(NAME, &header()).unwrap().end().unwrap();
}

fn replay_one_of(journal: &Journal) -> Record {
    journal.replay::<Header, Effect>().unwrap().records.remove(0).record
}

#[test]
fn entry_that_is_no_json_leaves_no_trace() {
    let dir = TempDir::new().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let unwritable = std::collections::HashMap::from([((1, 2), 3)]);
    assert!(matches!(journal.begin(NAME, &unwritable), Err(Error::Entry { .. })));
    let mut record = journal.begin(NAME, &header()).unwrap();
    assert!(matches!(record.intent(&unwritable), Err(Error::Entry { .. })));
    record.intent(&link("a")).unwrap();
    drop((journal, record));
    assert_eq!(effects(&replay_one(dir.path()).held), [(2, link("a"), false)]);
}

#[test]
fn long_note_is_cut_between_characters() {
    let dir = TempDir::new().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal
        .begin(NAME, &header())
        .unwrap()
        .note(&"€\n".repeat(5000))
        .unwrap();
    drop(journal);
    let note = replay_one(dir.path()).note.unwrap();
    assert!(note.len() <= 4096 && note.len() > 4090);
}

#[test]
fn file_that_is_no_record_is_left_alone() {
    let dir = TempDir::new().unwrap();
    write_one(dir.path());
    fs::write(dir.path().join("README"), "hello").unwrap();
    fs::create_dir(dir.path().join("d.record")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("l.record")).unwrap();
    replay_one(dir.path());
    for name in ["README", "d.record", "l.record"] {
        assert!(dir.path().join(name).symlink_metadata().is_ok(), "{name}");
    }
}
