//! Archive of a root file system that the kernel unpacks into memory: cpio in the "newc" format
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of Linux).

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cpio::{NewcBuilder, newc::trailer};

enum Content {
    Folder,
    File(PathBuf),
    Link(String),
}

/// Content of the root by path. The parent folders of a path are added with it.
#[derive(Default)]
pub(super) struct Archive {
    entries: BTreeMap<PathBuf, Content>,
}

impl Archive {
    pub(super) fn folder(&mut self, path: &str) {
        self.insert(path.into(), Content::Folder);
    }

    /// Adds a file of this host, with its permissions.
    pub(super) fn file(&mut self, path: impl Into<PathBuf>, from: &Path) {
        self.insert(path.into(), Content::File(from.to_owned()));
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.insert(path.into(), Content::Link(target.to_owned()));
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(Path::new(path))
    }

    fn insert(&mut self, path: PathBuf, content: Content) {
        let mut folder = path.as_path();
        while let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.entries.entry(parent.to_owned()).or_insert(Content::Folder);
            folder = parent;
        }
        self.entries.insert(path, content);
    }

    /// Writes the archive. A folder sorts before its content, as the kernel requires.
    pub(super) fn write(&self, to: &Path) -> Result<()> {
        let mut out = io::BufWriter::new(fs::File::create(to).with_context(|| to.display().to_string())?);
        for (inode, (path, content)) in self.entries.iter().enumerate() {
            let (mode, bytes) = match content {
                Content::Folder => (0o040_755, Vec::new()),
                Content::File(from) => {
                    let read = || io::Result::Ok((fs::metadata(from)?.permissions().mode() & 0o777, fs::read(from)?));
                    let (mode, bytes) = read().with_context(|| from.display().to_string())?;
                    (0o100_000 | mode, bytes)
                }
                Content::Link(target) => (0o120_777, target.clone().into_bytes()),
            };
            let header = NewcBuilder::new(&path.to_string_lossy())
                .ino(u32::try_from(inode + 1)?)
                .mode(mode)
                .nlink(1);
            let mut entry = header.write(&mut out, u32::try_from(bytes.len())?);
            entry.write_all(&bytes)?;
            entry.finish()?;
        }
        trailer(&mut out)?;
        Ok(out.flush()?)
    }
}
