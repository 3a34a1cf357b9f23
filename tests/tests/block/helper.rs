//! Programs that stand in for helpers: shell scripts that write down how they were called.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// A stand-in for a helper, in a folder of its own.
#[derive(Debug)]
pub(crate) struct Helper {
    name: &'static str,
    folder: PathBuf,
}

impl Helper {
    /// Writes one. Its text finds its folder in `$here`, the arguments in `$*`.
    pub(crate) fn new(directory: &Path, name: &'static str, text: &str) -> Result<Self> {
        let folder = directory.join(name);
        fs::create_dir_all(&folder)?;
        let program = folder.join(name);
        fs::write(
            &program,
            format!("#!/bin/sh\nhere={folder:?}\necho \"$*\" >>$here/calls\n{text}"),
        )?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(Self { name, folder })
    }

    /// A file of its state.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Its rules in the configuration, one for each list of patterns.
    pub(crate) fn rules(&self, patterns: &[&[&str]]) -> String {
        let path = self.file(self.name);
        let rules = patterns
            .iter()
            .map(|args| format!("{{ name = {:?}, path = {path:?}, args = {args:?} }}", self.name));
        rules.collect::<Vec<_>>().join(", ")
    }

    /// How it was called, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.file("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// Forgets how it was called.
    pub(crate) fn forget_calls(&self) -> Result<()> {
        Ok(fs::write(self.file("calls"), "")?)
    }
}
