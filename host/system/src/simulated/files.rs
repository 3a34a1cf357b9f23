//! Files, block devices and symbolic links by path. A directory exists if a path is below it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    Error,
    block::{
        SourceFacts, SourceIdentity,
        lookup::{self, DEV, LookupRoot, MAX_LINKS},
    },
    grant::{Access, BlockGrant},
};

/// Device number of the only file system.
const DEVICE: u64 = 1;

#[derive(Debug, Default)]
pub(super) struct Files {
    nodes: BTreeMap<PathBuf, Node>,
    inode: u64,
    mounts: BTreeMap<SourceIdentity, (String, bool)>,
}

#[derive(Clone, Debug)]
enum Node {
    Disk {
        identity: SourceIdentity,
        size: u64,
        diskseq: Option<u64>,
        read_only: bool,
    },
    Symlink(PathBuf),
    Pipe,
}

impl Files {
    pub(super) fn add_file(&mut self, path: &Path, size: u64) {
        self.inode += 1;
        let identity = SourceIdentity::File {
            device: DEVICE,
            inode: self.inode,
        };
        self.nodes.insert(
            path.into(),
            Node::Disk {
                identity,
                size,
                diskseq: None,
                read_only: false,
            },
        );
    }

    pub(super) fn add_block_device(&mut self, path: &Path, (major, minor): (u32, u32), size: u64, diskseq: u64) {
        let identity = SourceIdentity::BlockDevice { major, minor };
        self.nodes.insert(
            path.into(),
            Node::Disk {
                identity,
                size,
                diskseq: Some(diskseq),
                read_only: false,
            },
        );
    }

    pub(super) fn add_symlink(&mut self, path: &Path, target: &Path) {
        self.nodes.insert(path.into(), Node::Symlink(target.into()));
    }

    pub(super) fn add_pipe(&mut self, path: &Path) {
        self.nodes.insert(path.into(), Node::Pipe);
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.nodes.remove(path);
    }

    pub(super) fn forbid_writing(&mut self, path: &Path) {
        if let Some(Node::Disk { read_only, .. }) = self.nodes.get_mut(path) {
            *read_only = true;
        }
    }

    pub(super) fn mount(&mut self, path: &Path, mount: Option<(String, bool)>) {
        let Some(Node::Disk { identity, .. }) = self.nodes.get(path) else {
            return;
        };
        match mount {
            Some(mount) => self.mounts.insert(*identity, mount),
            None => self.mounts.remove(identity),
        };
    }

    /// Returns the mount point of a block device, if that mount conflicts with the access.
    pub(super) fn mounted(&self, identity: SourceIdentity, access: Access) -> Option<String> {
        let (point, read_only) = self.mounts.get(&identity)?;
        (access == Access::ReadWrite || !read_only).then(|| format!("the mount at {point}"))
    }

    /// Opens a path, with the same rules for links as on Linux ([`LookupRoot`]).
    pub(super) fn open(&self, grant: &BlockGrant, wanted: &Path, access: Access) -> Result<SourceFacts, Error> {
        let mut path = wanted.to_owned();
        let mut link = None;
        for _ in 0..=MAX_LINKS {
            let lookup_root = LookupRoot::of(grant, &path, link, |path| self.canonical(path))
                .ok_or_else(|| lookup::not_granted(wanted, link.is_some()))?;
            let directory = self
                .canonical(&lookup_root.directory)
                .ok_or_else(|| lookup::missing(wanted))?;
            let (at, rest) = self.to_first_link(directory, &lookup_root.rest);
            match self.nodes.get(&at) {
                Some(Node::Symlink(target)) => {
                    let directory = at.parent().unwrap_or(Path::new("/"));
                    link = Some(lookup_root.link(at.starts_with(DEV)));
                    path = lookup::target(directory, target, &rest).ok_or_else(|| lookup::not_granted(wanted, true))?;
                }
                Some(Node::Disk {
                    identity,
                    size,
                    diskseq,
                    read_only,
                }) => {
                    let is_file = matches!(identity, SourceIdentity::File { .. });
                    lookup_root.permit(wanted, access, !is_file && at.starts_with(DEV))?;
                    if *read_only && access == Access::ReadWrite {
                        return Err(lookup::read_only(if is_file { "File" } else { "Device" }, wanted));
                    }
                    let (identity, size, diskseq, read_only) = (*identity, *size, *diskseq, *read_only);
                    return Ok(SourceFacts {
                        identity,
                        path: at,
                        size,
                        diskseq,
                        read_only,
                    });
                }
                Some(Node::Pipe) => return Err(lookup::no_disk(wanted)),
                None if self.is_directory(&at) => return Err(lookup::no_disk(wanted)),
                None => return Err(lookup::missing(wanted)),
            }
        }
        Err(Error::kernel(
            format!("open {}", wanted.display()),
            rustix::io::Errno::LOOP,
        ))
    }

    /// Returns the path without links, if it exists.
    fn canonical(&self, path: &Path) -> Option<PathBuf> {
        let mut path = path.to_owned();
        for _ in 0..=MAX_LINKS {
            let (at, rest) = self.to_first_link("/".into(), path.strip_prefix("/").ok()?);
            match self.nodes.get(&at) {
                Some(Node::Symlink(target)) => path = lookup::target(at.parent()?, target, &rest)?,
                Some(_) => return Some(at),
                None => return self.is_directory(&at).then_some(at),
            }
        }
        None
    }

    /// Follows a path to its end, or to the first link on it.
    fn to_first_link(&self, mut at: PathBuf, path: &Path) -> (PathBuf, PathBuf) {
        let mut components = path.components();
        for component in components.by_ref() {
            at.push(component);
            if let Some(Node::Symlink(_)) = self.nodes.get(&at) {
                break;
            }
        }
        (at, components.as_path().into())
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.nodes.keys().any(|node| node != path && node.starts_with(path))
    }
}
