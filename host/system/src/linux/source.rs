//! Opening the files and block devices behind disks.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{self, FileType, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use super::{ioctl, resolve};
use crate::{
    Error,
    block::{SourceFacts, SourceIdentity, absolute, lookup},
    grant::{Access, BlockGrant},
};

/// An open source.
#[derive(Debug)]
pub(super) struct OpenSource {
    pub fd: OwnedFd,
    pub access: Access,
    pub facts: SourceFacts,
}

impl OpenSource {
    pub(super) fn open(grant: &BlockGrant, wanted: &str, access: Access) -> Result<Self, Error> {
        let wanted = absolute(wanted)?;
        let found = resolve::find(grant, &wanted, access)?;
        let what = || format!("open {}", wanted.display());
        let path = resolve::path_of(&found.fd).map_err(|errno| Error::kernel(what(), errno))?;
        // The path goes into messages and journal records, so it has to be plain text.
        if path.to_str().is_none_or(|path| path.contains(char::is_control)) {
            return Err(Error::params(format!(
                "{} leads to a path that is not plain text",
                wanted.display()
            )));
        }
        let is_file = FileType::from_raw_mode(found.stat.st_mode) == FileType::RegularFile;
        let read_only = || lookup::read_only(if is_file { "File" } else { "Device" }, &wanted);

        // Root may write to any file. A file without write permission for anybody counts as read-only.
        let unwritable = is_file && found.stat.st_mode & 0o222 == 0;
        if unwritable && access == Access::ReadWrite {
            return Err(read_only());
        }
        let mode = match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        // A drive without a medium must not block the open. On a file the flag would make the open fail if another
        // process holds a lease.
        let nonblock = if is_file { OFlags::empty() } else { OFlags::NONBLOCK };
        let flags = mode | nonblock | OFlags::CLOEXEC | OFlags::NOCTTY;
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
