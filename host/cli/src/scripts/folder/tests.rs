use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

const PROGRAM: &str = "/usr/lib/xenplug/xenplug-script";
const ORIGINAL: &str = "#!/bin/bash\ndir=$(dirname \"$0\")\n";

/// Folder of scripts for a test.
struct Scripts {
    folder: Folder,
    directory: TempDir,
    name: Name,
}

/// State of a file: content or target, inode, mode and time of its last change.
type FileState = (String, u64, u32, i64);

impl Scripts {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self {
            folder: Folder::new(directory.path(), Path::new(PROGRAM)),
            directory,
            name: "block".parse().expect("a name"),
        }
    }

    fn with_original() -> Self {
        let scripts = Self::new();
        scripts.write("block", ORIGINAL, 0o750);
        scripts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        // A new inode, as from a package's upgrade.
        let _ = fs::remove_file(self.path(name));
        fs::write(self.path(name), text).expect("a file");
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).expect("a mode");
    }

    fn found(&self, name: &str) -> Option<FileState> {
        let path = self.path(name);
        let found = metadata(&path).expect("metadata")?;
        let text = match fs::read_link(&path) {
            Ok(target) => target.display().to_string(),
            Err(_) => fs::read_to_string(&path).expect("text"),
        };
        Some((text, found.ino(), found.mode(), found.mtime()))
    }

    /// Returns the state of every file.
    fn all(&self) -> Vec<(String, FileState)> {
        let mut names: Vec<String> = fs::read_dir(self.directory.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
            .into_iter()
            .map(|name| (name.clone(), self.found(&name).expect("it is there")))
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.all().into_iter().map(|(name, _)| name).collect()
    }

    fn state(&self) -> State {
        self.folder.slot(&self.name).expect("a state").state
    }

    fn install(&self) -> Change {
        let locked = self.folder.lock().expect("a lock");
        locked.install(&self.name).expect("an installed shim")
    }

    fn uninstall(&self) -> Change {
        let locked = self.folder.lock().expect("a lock");
        locked.uninstall(&self.name).expect("an uninstalled shim")
    }
}

#[test]
fn uninstall_restores_the_very_same_original() {
    let scripts = Scripts::with_original();
    let before = scripts.all();
    assert_eq!(scripts.state(), State::Original);
    assert_eq!(scripts.uninstall(), Change::NotInstalled);
    assert_eq!(scripts.all(), before);

    assert_eq!(
        scripts.install(),
        Change::Installed {
            saved: true,
            aside: false
        }
    );
    assert_eq!(scripts.state(), State::Shim);
    let installed = scripts.all();
    assert_eq!(scripts.found("block.xenplug-original"), Some(before[0].1.clone()));
    let (text, _, mode, _) = scripts.found("block").expect("a shim");
    assert!(text.starts_with(&format!("#!{PROGRAM}\n")), "{text}");
    assert_eq!(mode & 0o7777, 0o755);
    assert_eq!(scripts.install(), Change::AlreadyInstalled);
    assert_eq!(scripts.all(), installed);

    assert_eq!(scripts.uninstall(), Change::Restored);
    assert_eq!(scripts.all(), before);
}

#[test]
fn shim_without_original_is_removed_without_a_trace() {
    let scripts = Scripts::new();
    assert_eq!(scripts.state(), State::Missing);
    assert_eq!(scripts.uninstall(), Change::NotInstalled);
    assert_eq!(
        scripts.install(),
        Change::Installed {
            saved: false,
            aside: false
        }
    );
    assert_eq!(
        (scripts.install(), scripts.names()),
        (Change::AlreadyInstalled, vec!["block".into()])
    );
    assert_eq!(scripts.folder.slot(&scripts.name).expect("a slot").original, None);
    assert_eq!((scripts.uninstall(), scripts.names()), (Change::Removed, vec![]));
}

#[test]
fn original_that_is_a_link_stays_a_link() {
    let scripts = Scripts::new();
    scripts.write("block-of-the-site", ORIGINAL, 0o755);
    for target in ["block-of-the-site", "/nowhere"] {
        symlink(target, scripts.path("block")).expect("a link");
        let before = scripts.all();
        assert_eq!(scripts.state(), State::Original);
        scripts.install();
        let slot = scripts.folder.slot(&scripts.name).expect("a slot");
        assert_eq!((slot.state, slot.link_target), (State::Shim, Some(target.into())));
        assert_eq!((scripts.uninstall(), scripts.all()), (Change::Restored, before));
        fs::remove_file(scripts.path("block")).expect("it is there");
    }
    // A link to a shim is not a shim.
    let other = Scripts::new();
    other.install();
    symlink(other.path("block"), scripts.path("block")).expect("a link");
    assert_eq!(scripts.state(), State::Original);
}

#[test]
fn script_of_an_upgrade_becomes_the_next_original() {
    for installs in [true, false] {
        let scripts = Scripts::with_original();
        let old = scripts.found("block");
        scripts.install();
        scripts.write("block", "#!/bin/bash\n# of the next version\n", 0o755);
        let new = scripts.found("block");
        assert_eq!(scripts.state(), State::Changed);
        if installs {
            let change = Change::Installed {
                saved: true,
                aside: true,
            };
            assert_eq!((scripts.install(), scripts.state()), (change, State::Shim));
            assert_eq!(scripts.found("block.xenplug-original"), new);
            scripts.uninstall();
        } else {
            assert_eq!(scripts.uninstall(), Change::SetAside);
        }
        assert_eq!(scripts.names(), ["block", "block.xenplug-old"]);
        assert_eq!((scripts.found("block"), scripts.found("block.xenplug-old")), (new, old));
        assert_eq!(
            (scripts.state(), scripts.uninstall()),
            (State::Original, Change::NotInstalled)
        );
    }
}

#[test]
fn outdated_shim_is_renewed_and_keeps_its_original() {
    let scripts = Scripts::with_original();
    let before = scripts.all();
    scripts.install();
    for text in [
        "#!/usr/local/lib/xenplug-script\n",
        &format!("#! {PROGRAM} \n# mine\n"),
        &format!("#!{PROGRAM}"),
    ] {
        scripts.write("block", text, 0o755);
        assert_eq!(scripts.state(), State::Outdated, "{text}");
        assert_eq!((scripts.install(), scripts.state()), (Change::Renewed, State::Shim));
        scripts.write("block", text, 0o755);
        assert_eq!((scripts.uninstall(), scripts.all()), (Change::Restored, before.clone()));
        scripts.install();
    }
}

#[test]
fn next_run_completes_an_install_killed_at_any_step() {
    // The steps leave the new file begun or complete, the original under both names, or the shim in place with the new
    // file's name left.
    let steps: [fn(&Scripts); 4] = [
        |scripts| scripts.write(".block.xenplug-new", "#!/usr/li", 0o600),
        |scripts| scripts.write(".block.xenplug-new", &scripts.folder.text(&scripts.name), 0o755),
        |scripts| {
            scripts.write(".block.xenplug-new", &scripts.folder.text(&scripts.name), 0o755);
            fs::hard_link(scripts.path("block"), scripts.path("block.xenplug-original")).expect("a link");
        },
        |scripts| fs::hard_link(scripts.path("block"), scripts.path("block.xenplug-original")).expect("a link"),
    ];
    for (number, step) in steps.iter().enumerate() {
        let scripts = Scripts::with_original();
        let before = scripts.all();
        step(&scripts);
        assert_eq!(scripts.state(), State::Original, "step {number}");
        assert_eq!(scripts.uninstall(), Change::NotInstalled, "step {number}");
        assert_eq!(scripts.all(), before, "step {number}");
        step(&scripts);
        scripts.install();
        assert_eq!(scripts.state(), State::Shim, "step {number}");
        assert_eq!(scripts.names(), ["block", "block.xenplug-original"], "step {number}");
        assert_eq!(
            (scripts.uninstall(), scripts.all()),
            (Change::Restored, before),
            "step {number}"
        );
    }
    // Without an original: the shim in place with the new file's name left.
    let scripts = Scripts::new();
    scripts.install();
    fs::hard_link(scripts.path("block"), scripts.path(".block.xenplug-new")).expect("a link");
    assert_eq!(
        (scripts.install(), scripts.names()),
        (Change::AlreadyInstalled, vec!["block".into()])
    );
    // The saved original set aside, and no shim yet.
    let scripts = Scripts::with_original();
    scripts.install();
    scripts.write("block", "#!/bin/sh\n", 0o755);
    fs::rename(
        scripts.path("block.xenplug-original"),
        scripts.path("block.xenplug-old"),
    )
    .expect("a file");
    scripts.install();
    assert_eq!(
        scripts.names(),
        ["block", "block.xenplug-old", "block.xenplug-original"]
    );
}

#[test]
fn deleted_shim_is_installed_again_or_its_original_restored() {
    let scripts = Scripts::with_original();
    let before = scripts.all();
    scripts.install();
    fs::remove_file(scripts.path("block")).expect("it is there");
    assert_eq!(scripts.state(), State::Missing);
    scripts.install();
    assert_eq!(scripts.names(), ["block", "block.xenplug-original"]);
    fs::remove_file(scripts.path("block")).expect("it is there");
    assert_eq!((scripts.uninstall(), scripts.all()), (Change::Restored, before));
}

#[test]
fn non_file_is_left_alone_and_changed_scripts_are_found() {
    let scripts = Scripts::with_original();
    fs::create_dir(scripts.path("vif-bridge")).expect("a directory");
    let directory = "vif-bridge".parse().expect("a name");
    let locked = scripts.folder.lock().expect("a lock");
    assert!(matches!(locked.install(&directory), Err(Error::NotAFile(_))));
    drop(locked);
    assert_eq!(scripts.folder.changed().expect("names"), []);
    scripts.install();
    scripts.write("vif-own.xenplug-original", ORIGINAL, 0o755);
    scripts.write("block-tap", ORIGINAL, 0o755);
    let names: Vec<String> = scripts
        .folder
        .changed()
        .expect("names")
        .iter()
        .map(Name::to_string)
        .collect();
    assert_eq!(names, ["block", "vif-own"]);
    let nowhere = Folder::new(Path::new("/nowhere"), Path::new(PROGRAM));
    assert!(nowhere.lock().is_err() && nowhere.changed().is_err());
}
