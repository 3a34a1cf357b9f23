//! The configuration, as the clients of the daemon read it.

use std::{cell::RefCell, fs};

use tempfile::TempDir;
use xenplug_control::{Settings, SettingsError as Error};

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// Reads the file twice with the same result, or refuses it in one line that names a line of the file.
pub(crate) fn check(bytes: &[u8]) {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| {
            tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .expect("a folder")
        });
        let file = folder.path().join("xenplugd.toml");
        fs::write(&file, bytes).expect("the folder is writable");
        match Settings::read(&file) {
            Ok(settings) => {
                let again = Settings::read(&file).expect("the file was readable");
                assert_eq!(settings, again);
                assert!(settings.is_some(), "the file exists");
            }
            Err(Error::Parse { line, message, .. }) => {
                let lines = bytes.split(|byte| *byte == b'\n').count();
                assert!((1..=lines).contains(&line), "line {line} of {lines}");
                assert!(!message.contains('\n'), "{message:?}");
            }
            Err(Error::Read { .. }) => assert!(std::str::from_utf8(bytes).is_err()),
        }
    });
}
