//! Resolution of a path to a descriptor within a grant.
//!
//! The kernel keeps each step within a rule's directory: openat2 with `RESOLVE_BENEATH` and without links.
//! [`LookupRoot`] decides about links.

use std::{
    ffi::OsString,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, CWD, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::{Errno, retry_on_intr},
};

use crate::{
    Error,
    block::lookup::{self, DEV, LookupRoot, MAX_LINKS},
    grant::{Access, BlockGrant},
};

/// File or block device that a path leads to.
#[derive(Debug)]
pub(super) struct Found {
    /// `O_PATH` descriptor.
    pub fd: OwnedFd,
    /// Result of fstat(2).
    pub stat: Stat,
}

/// Resolves a path, and checks that the grant permits the access.
pub(super) fn find(grant: &BlockGrant, wanted: &Path, access: Access) -> Result<Found, Error> {
    let kernel = |errno| match errno {
        Errno::NOENT | Errno::NOTDIR => lookup::missing(wanted),
        errno => Error::kernel(format!("open {}", wanted.display()), errno),
    };
    let mut path = wanted.to_owned();
    let mut link = None;
    for _ in 0..=MAX_LINKS {
        let canonical = |path: &Path| path.canonicalize().ok();
        let lookup_root =
            LookupRoot::of(grant, &path, link, canonical).ok_or_else(|| lookup::not_granted(wanted, link.is_some()))?;
        let step = Step::along(&lookup_root).map_err(kernel)?;
        match FileType::from_raw_mode(step.stat.st_mode) {
            FileType::Symlink => {
                let directory = step.directory().map_err(kernel)?;
                link = Some(lookup_root.link(step.stat.st_uid == 0 && on_dev(&directory, &step.stat)));
                path = step.target(&directory).map_err(kernel)?;
            }
            FileType::RegularFile => {
                lookup_root.permit(wanted, access, false)?;
                return Ok(Found {
                    fd: step.fd,
                    stat: step.stat,
                });
            }
            FileType::BlockDevice => {
                lookup_root.permit(wanted, access, on_dev(&path, &step.stat))?;
                return Ok(Found {
                    fd: step.fd,
                    stat: step.stat,
                });
            }
            _ => return Err(lookup::no_disk(wanted)),
        }
    }
    Err(kernel(Errno::LOOP))
}

/// Returns the path of an open descriptor, without links.
pub(super) fn path_of(fd: &OwnedFd) -> Result<PathBuf, Errno> {
    fs::readlink(proc_path(fd), Vec::new()).map(|path| OsString::from_vec(path.into_bytes()).into())
}

/// Returns the path in /proc that opens the file of an `O_PATH` descriptor, even if its own path has changed.
pub(super) fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Position on a path up to its first link.
struct Step {
    fd: OwnedFd,
    stat: Stat,
    root: OwnedFd,
    /// Path of `fd` below the root.
    at: PathBuf,
    /// Rest of the path after it.
    rest: PathBuf,
}

impl Step {
    /// Follows a path to its end, or to the first link on it.
    fn along(lookup_root: &LookupRoot) -> Result<Self, Errno> {
        let open = || fs::open(&lookup_root.directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let root = retry_on_intr(open)?;
        match beneath(&root, &lookup_root.rest) {
            Ok(fd) => Ok(Self {
                stat: fs::fstat(&fd)?,
                fd,
                root,
                at: lookup_root.rest.clone(),
                rest: PathBuf::new(),
            }),
            Err(Errno::LOOP) => Self::to_first_link(root, &lookup_root.rest),
            Err(errno) => Err(errno),
        }
    }

    fn to_first_link(root: OwnedFd, path: &Path) -> Result<Self, Errno> {
        let mut at = PathBuf::new();
        let mut components = path.components();
        while let Some(component) = components.next() {
            at.push(component);
            let fd = beneath(&root, &at)?;
            let stat = fs::fstat(&fd)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                return Ok(Self {
                    fd,
                    stat,
                    root,
                    at,
                    rest: components.as_path().into(),
                });
            }
        }
        // A component was removed meanwhile.
        Err(Errno::NOENT)
    }

    /// Returns the real path of the directory that contains the file or link.
    fn directory(&self) -> Result<PathBuf, Errno> {
        path_of(&beneath(&self.root, self.at.parent().unwrap_or(Path::new("")))?)
    }

    /// Returns the path that the link, which is in `directory`, makes of the resolved path.
    fn target(&self, directory: &Path) -> Result<PathBuf, Errno> {
        let target = fs::readlinkat(&self.fd, "", Vec::new())?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        lookup::target(directory, &target, &self.rest).ok_or(Errno::XDEV)
    }
}

/// Opens a path below a directory without following links. If the last component is a link, opens the link itself.
fn beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    if path.as_os_str().is_empty() {
        return rustix::io::fcntl_dupfd_cloexec(root, 0);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // Signals interrupt lookups on file systems that wait for a server or a process (NFS, FUSE).
    retry_on_intr(|| fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve))
}

/// Tells whether a path is on the file system of /dev.
fn on_dev(path: &Path, stat: &Stat) -> bool {
    path.starts_with(DEV) && fs::statat(CWD, DEV, fs::AtFlags::empty()).is_ok_and(|dev| dev.st_dev == stat.st_dev)
}
