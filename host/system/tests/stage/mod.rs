//! Where a test plays: this machine, or the simulated one. Most cases run on both.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;
use xenplug_system::{
    System,
    grant::{Access, BlockGrant, Operator, PathRule},
};

/// A machine with an empty directory.
pub(crate) struct Stage {
    pub(crate) system: System,
    pub(crate) name: &'static str,
    directory: TempDir,
}

impl Stage {
    /// Each kind of machine.
    pub(crate) fn all() -> Vec<Self> {
        vec![Self::linux()]
    }

    /// This machine.
    pub(crate) fn linux() -> Self {
        need_root();
        Self {
            system: System::linux().unwrap(),
            name: "linux",
            directory: TempDir::new().unwrap(),
        }
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory.path().canonicalize().unwrap().display())
    }

    /// Makes a file of that size, and the directories above it.
    pub(crate) fn file(&self, name: &str, size: u64) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    /// Makes a symbolic link, and the directories above it.
    pub(crate) fn link(&self, name: &str, target: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, &path).unwrap();
        path
    }

    /// Takes everyone's permission to write.
    pub(crate) fn forbid_writing(&self, name: &str) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o444)).unwrap();
    }

    /// Deletes a file.
    pub(crate) fn delete(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }
}

/// A grant of paths, and of loop devices.
pub(crate) fn block_grant(rules: &[(&str, Access)]) -> BlockGrant {
    let rules = rules
        .iter()
        .map(|(path, access)| PathRule {
            path: path.into(),
            access: *access,
        })
        .collect();
    BlockGrant::new(&Operator::of_configuration(), rules, true)
}

/// A tag that no other test uses.
pub(crate) fn tag(test: &str) -> String {
    format!("xenplug-test-{}-{test}", std::process::id())
}

/// These tests change the machine, in ways of their own.
fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root: it attaches loop devices and makes namespaces"
    );
}
