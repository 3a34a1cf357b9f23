//! From a path to a descriptor, without a way out of what is granted.
//!
//! The kernel itself keeps each step within a rule's directory (openat2 with `RESOLVE_BENEATH` and no links at all); a
//! link on the way is read, and where it leads is looked up in the grant like a path that was asked for. What is
//! swapped meanwhile by someone who can write in the directory is thus at worst another granted file.
//!
//! One kind of link may lead out of its rule: `/dev/vg0/disk` is a link to `/dev/dm-3`, and `/dev/disk/by-id/...` to
//! `/dev/sda`. A link on the file system of /dev itself that belongs to root, and leads to a block device on that same
//! file system, is udev's word for what the granted name means, and is followed.

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
    io::Errno,
};

use crate::{
    Error,
    grant::{Access, BlockGrant},
};

/// How many links are followed (include/linux/namei.h, `MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

const DEV: &str = "/dev";

/// What a path led to: a regular file or a block device.
#[derive(Debug)]
pub(super) struct Found {
    /// An `O_PATH` descriptor.
    pub fd: OwnedFd,
    /// Its facts.
    pub stat: Stat,
}

/// Finds what a path leads to, if it may be used that way.
pub(super) fn find(grant: &BlockGrant, wanted: &Path, access: Access) -> Result<Found, Error> {
    let kernel = |errno| match errno {
        Errno::NOENT | Errno::NOTDIR => Error::NotFound(format!("{} does not exist", wanted.display())),
        errno => Error::kernel(format!("open {}", wanted.display()), errno),
    };
    let mut path = wanted.to_owned();
    let mut link = None;
    for _ in 0..=MAX_LINKS {
        let Some(root) = Root::of(grant, &path, link) else {
            let what = if link.is_some() {
                "leads to a place that is not granted"
            } else {
                "is not granted"
            };
            return Err(Error::Denied(format!("{} {what}", wanted.display())));
        };
        let step = root.step().map_err(kernel)?;
        match FileType::from_raw_mode(step.stat.st_mode) {
            FileType::Symlink => {
                let directory = step.directory().map_err(kernel)?;
                link = Some(Link {
                    access: root.access,
                    of_dev: step.stat.st_uid == 0 && on_dev(&directory, &step.stat),
                });
                path = step.target(&directory).map_err(kernel)?;
            }
            FileType::RegularFile | FileType::BlockDevice => {
                let block_device = FileType::from_raw_mode(step.stat.st_mode) == FileType::BlockDevice;
                let permitted = root.granted || (block_device && on_dev(&path, &step.stat));
                if !permitted {
                    return Err(Error::Denied(format!(
                        "{} leads to a place that is not granted",
                        wanted.display()
                    )));
                }
                if access > root.access {
                    return Err(Error::Denied(format!(
                        "{} is granted for reading only",
                        wanted.display()
                    )));
                }
                return Ok(Found {
                    fd: step.fd,
                    stat: step.stat,
                });
            }
            _ => {
                return Err(Error::params(format!(
                    "{} is neither a file nor a block device",
                    wanted.display()
                )));
            }
        }
    }
    Err(kernel(Errno::LOOP))
}

/// The path of an open descriptor, without links.
pub(super) fn path_of(fd: &OwnedFd) -> Result<PathBuf, Errno> {
    fs::readlink(proc_path(fd), Vec::new()).map(|path| OsString::from_vec(path.into_bytes()).into())
}

/// The name by which an `O_PATH` descriptor can be opened for use: the same file, whatever has become of its path.
pub(super) fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A link that was followed.
#[derive(Clone, Copy)]
struct Link {
    /// How what it leads to may be used, if by its word.
    access: Access,
    /// It is root's, on the file system of /dev.
    of_dev: bool,
}

/// Where to look a path up, and how what is found may be used.
struct Root {
    directory: PathBuf,
    rest: PathBuf,
    access: Access,
    /// By a rule, and not by the word of a link in /dev.
    granted: bool,
}

impl Root {
    /// The most specific rule for a path; else, behind a link of /dev, /dev itself.
    fn of(grant: &BlockGrant, path: &Path, link: Option<Link>) -> Option<Self> {
        if let Some((rule, rest)) = grant.rule(path) {
            return Some(Self {
                directory: rule.path.clone(),
                rest: rest.into(),
                access: rule.access,
                granted: true,
            });
        }
        let link = link?;
        // Where a link leads is a real path, while that of the rule may have links in it.
        let real = grant.rules().iter().filter_map(|rule| {
            let directory = rule.path.canonicalize().ok()?;
            let rest = path.strip_prefix(&directory).ok()?.into();
            Some(Self {
                directory,
                rest,
                access: rule.access,
                granted: true,
            })
        });
        real.max_by_key(|root| root.directory.components().count()).or_else(|| {
            let rest = path.strip_prefix(DEV).ok().filter(|_| link.of_dev)?.into();
            Some(Self {
                directory: DEV.into(),
                rest,
                access: link.access,
                granted: false,
            })
        })
    }

    /// Goes along the path to its end, or to the first link on it.
    fn step(&self) -> Result<Step, Errno> {
        let root = fs::open(&self.directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        match beneath(&root, &self.rest) {
            Ok(fd) => Ok(Step {
                stat: fs::fstat(&fd)?,
                fd,
                root,
                at: self.rest.clone(),
                rest: PathBuf::new(),
            }),
            Err(Errno::LOOP) => self.first_link(root),
            Err(errno) => Err(errno),
        }
    }

    fn first_link(&self, root: OwnedFd) -> Result<Step, Errno> {
        let mut at = PathBuf::new();
        let mut components = self.rest.components();
        while let Some(component) = components.next() {
            at.push(component);
            let fd = beneath(&root, &at)?;
            let stat = fs::fstat(&fd)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                return Ok(Step {
                    fd,
                    stat,
                    root,
                    at,
                    rest: components.as_path().into(),
                });
            }
        }
        // It was there a moment ago.
        Err(Errno::NOENT)
    }
}

/// How far a path leads without following a link.
struct Step {
    fd: OwnedFd,
    stat: Stat,
    root: OwnedFd,
    /// Where `fd` lies below the root.
    at: PathBuf,
    /// What of the path comes after it.
    rest: PathBuf,
}

impl Step {
    /// The real path of the directory that holds it.
    fn directory(&self) -> Result<PathBuf, Errno> {
        path_of(&beneath(&self.root, self.at.parent().unwrap_or(Path::new("")))?)
    }

    /// For a link in `directory`: the path that it makes of the one that led to it.
    fn target(&self, directory: &Path) -> Result<PathBuf, Errno> {
        let target = fs::readlinkat(&self.fd, "", Vec::new())?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        let mut path = directory.to_owned();
        let mut below = false;
        for component in target.components() {
            use std::path::Component;
            match component {
                Component::RootDir => path = "/".into(),
                // Behind a name that may be a link, ".." is not what it looks like.
                Component::ParentDir if below => return Err(Errno::XDEV),
                Component::ParentDir => _ = path.pop(),
                Component::Normal(name) => {
                    path.push(name);
                    below = true;
                }
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        path.push(&self.rest);
        Ok(path)
    }
}

/// Opens what lies below a directory, without following links: a link at the end is opened itself.
fn beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    if path.as_os_str().is_empty() {
        return rustix::io::fcntl_dupfd_cloexec(root, 0);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve)
}

/// Whether something is on the file system of /dev.
fn on_dev(path: &Path, stat: &Stat) -> bool {
    path.starts_with(DEV) && fs::statat(CWD, DEV, fs::AtFlags::empty()).is_ok_and(|dev| dev.st_dev == stat.st_dev)
}
