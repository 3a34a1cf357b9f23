//! A file system with next to no room. The test has a process of its own: a fork before its exec holds every lock of
//! its parent, which other tests would take for a second daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use tempfile::TempDir;
use xenplug_journal::{Journal, Replay, Replayed};

const NAME: &str = "vbd-3-51712";
const HEADER: &str = "/vm/1";
const EFFECT: &str = "some loop device on some file or other";

/// The variable that tells a copy of this test program its small file system.
const SMALL: &str = "XENPLUG_TEST_SMALL_FILE_SYSTEM";

#[test]
fn full_file_system_fails_closed_and_harms_no_line() {
    if let Some(dir) = std::env::var_os(SMALL) {
        return fill_up(Path::new(&dir));
    }
    let dir = TempDir::new().unwrap();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut unshare = Command::new("unshare");
    // The mount is in a namespace of its own, and goes with the last process in it.
    unshare
        .args(["--mount", "--propagation", "private"])
        .args((!root).then_some("--map-root-user"));
    let script = format!("mount -t tmpfs -o size=16k,mode=700 xenplug-test \"${SMALL}\" && exec \"$0\" \"$@\"");
    let name = std::thread::current().name().unwrap().to_owned();
    let output = unshare
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(SMALL, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if !text.contains("running 1 test") && std::env::var_os("CI").is_none_or(|ci| ci != "true") {
        #[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
        return eprintln!("CANNOT RUN {name}: a mount namespace is needed: {text}");
    }
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

fn fill_up(dir: &Path) {
    let journal = Journal::open(dir).unwrap();
    let spare = dir.join("spare");
    // The room may end with a line, by chance; but not each time.
    for shift in [0, 1, 50] {
        fs::write(&spare, [0; 4096]).unwrap();
        let mut record = journal.begin(NAME, &HEADER).unwrap();
        record.note(&"n".repeat(shift)).unwrap();
        let mut held = Vec::new();
        let error = loop {
            assert!(held.len() < 1000, "this file system has room");
            match record.intent(&EFFECT) {
                Ok(seq) => held.push(seq),
                Err(error) => break error,
            }
        };
        assert!(
            error.is_full() && error.to_string().starts_with("cannot append to"),
            "{error:?}"
        );
        assert_eq!(
            (record.holds(), fs::read(dir.join("vbd-3-51712.record")).unwrap().last()),
            (held.len(), Some(&b'\n'))
        );
        let other = journal.begin("other", &EFFECT);
        assert!(other.is_err_and(|error| error.is_full()) && !dir.join("other.record").exists());

        // A release that cannot be written counts all the same, for this daemon.
        while record.note("").is_ok() {}
        for seq in &held {
            assert!(record.released(*seq).is_err_and(|error| error.is_full()));
        }
        assert_eq!(record.holds(), 0);

        // With room again the record goes on, and the next daemon finds every written line, and no half one.
        fs::remove_file(&spare).unwrap();
        held.push(record.intent(&EFFECT).unwrap());
        drop(record);
        let Replay { mut records, aside, .. } = journal.replay::<String, String>().unwrap();
        assert!(aside.is_empty(), "{aside:?}");
        let Replayed {
            mut record,
            held: found,
            ..
        } = records.remove(0);
        assert_eq!(found.iter().map(|held| held.seq).collect::<Vec<_>>(), held);
        for seq in held {
            // There is not room for all of it.
            let _ = record.released(seq);
        }
        record.end().unwrap();
    }
}
