//! Open files and block devices, by number.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{self, FileType, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use super::{ioctl, loops::Loops, resolve, usage::Usage};
use crate::{
    Block, Error,
    block::{LoopDevice, LoopOptions, Source, SourceFacts, SourceIdentity, absolute, lookup},
    grant::{Access, BlockGrant},
    lock,
};

/// Files, block devices and loop devices of this machine.
#[derive(Debug, Default)]
pub(crate) struct LinuxBlock {
    sources: Mutex<HashMap<u64, Arc<OpenSource>>>,
    opened: AtomicU64,
    loops: Loops,
    usage: Usage,
}

/// A source that is open.
#[derive(Debug)]
pub(super) struct OpenSource {
    pub fd: OwnedFd,
    pub access: Access,
    pub facts: SourceFacts,
}

impl LinuxBlock {
    fn source(&self, source: &Source) -> Result<Arc<OpenSource>, Error> {
        let open = lock(&self.sources).get(&source.id).cloned();
        open.ok_or_else(|| Error::NotFound(format!("{} is not open", source.facts.path.display())))
    }
}

impl Block for LinuxBlock {
    fn open(&self, grant: &BlockGrant, path: &str, access: Access) -> Result<Source, Error> {
        let source = OpenSource::open(grant, path, access)?;
        let facts = source.facts.clone();
        let id = self.opened.fetch_add(1, Ordering::Relaxed);
        lock(&self.sources).insert(id, Arc::new(source));
        Ok(Source { id, facts })
    }

    fn close(&self, source: u64) {
        // The descriptor may take its time to close: not under the lock.
        let closed = lock(&self.sources).remove(&source);
        drop(closed);
    }

    fn used_by(&self, source: &Source, access: Access, ours: &[u32]) -> Result<Option<String>, Error> {
        let source = self.source(source)?;
        match source.facts.identity {
            SourceIdentity::File { .. } => self.usage.of_file(&source, access, |number| {
                ours.contains(&number) || self.loops.holds(number)
            }),
            SourceIdentity::BlockDevice { .. } => self.usage.of_block_device(&source, access),
        }
    }

    fn attach_loop(&self, grant: &BlockGrant, source: &Source, options: &LoopOptions) -> Result<LoopDevice, Error> {
        grant.permit_loops()?;
        self.loops.attach(&*self.source(source)?, options)
    }

    fn adopt_loop(&self, grant: &BlockGrant, device: &LoopDevice) -> Result<Option<LoopDevice>, Error> {
        grant.permit_loops()?;
        self.loops.adopt(grant, device)
    }

    fn find_loops(&self, tag: &str) -> Result<Vec<LoopDevice>, Error> {
        super::loops::find(tag)
    }

    fn detach_loop(&self, device: &LoopDevice) -> Result<(), Error> {
        self.loops.detach(device)
    }
}

impl OpenSource {
    pub(super) fn open(grant: &BlockGrant, wanted: &str, access: Access) -> Result<Self, Error> {
        let wanted = absolute(wanted)?;
        let found = resolve::find(grant, &wanted, access)?;
        let what = || format!("open {}", wanted.display());
        let path = resolve::path_of(&found.fd).map_err(|errno| Error::kernel(what(), errno))?;
        // It goes into messages and records.
        if path.to_str().is_none_or(|path| path.contains(char::is_control)) {
            return Err(Error::params(format!(
                "{} leads to a path that is not plain text",
                wanted.display()
            )));
        }
        let is_file = FileType::from_raw_mode(found.stat.st_mode) == FileType::RegularFile;
        let read_only = || lookup::read_only(if is_file { "File" } else { "Device" }, &wanted);

        // Root may write what nobody may.
        let unwritable = is_file && found.stat.st_mode & 0o222 == 0;
        if unwritable && access == Access::ReadWrite {
            return Err(read_only());
        }
        let mode = match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        // A drive without a medium must not make us wait; on a file the flag would fail where someone holds a lease.
        let patience = if is_file { OFlags::empty() } else { OFlags::NONBLOCK };
        let flags = mode | patience | OFlags::CLOEXEC | OFlags::NOCTTY;
        let again = || fs::open(resolve::proc_path(&found.fd), flags, Mode::empty());
        let fd = retry_on_intr(again).map_err(|errno| match errno {
            Errno::ROFS => read_only(),
            Errno::ACCESS if !is_file => read_only(),
            Errno::TXTBSY => Error::Busy(format!("{} is in use as a swap file or a program", wanted.display())),
            errno => Error::kernel(what(), errno),
        })?;

        let stat = found.stat;
        let facts = if is_file {
            SourceFacts {
                identity: SourceIdentity::File {
                    device: stat.st_dev,
                    inode: stat.st_ino,
                },
                path,
                size: stat.st_size.cast_unsigned(),
                diskseq: None,
                read_only: unwritable,
            }
        } else {
            let kernel = |errno| Error::kernel(what(), errno);
            SourceFacts {
                identity: SourceIdentity::BlockDevice {
                    major: fs::major(stat.st_rdev),
                    minor: fs::minor(stat.st_rdev),
                },
                path,
                size: ioctl::block_size(fd.as_fd()).map_err(kernel)?,
                diskseq: ioctl::disk_sequence(fd.as_fd()),
                read_only: ioctl::block_read_only(fd.as_fd()).map_err(kernel)?,
            }
        };
        Ok(Self { fd, access, facts })
    }
}
