//! Files and block devices within a grant, and loop devices on them.

pub(crate) mod lookup;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    grant::{Access, BlockGrant},
};

/// An open file or block device: a number for as long as it is open, and the facts of its descriptor.
#[derive(Clone, Debug)]
pub struct Source {
    /// Which one, for [`Block::close`].
    pub id: u64,
    /// Facts from its descriptor.
    pub facts: SourceFacts,
}

/// Facts about a source, read from its descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// Identity that no other source has.
    pub identity: SourceIdentity,
    /// The path without symbolic links.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// For a block device: the kernel's sequence number of the disk.
    pub diskseq: Option<u64>,
    /// A block device set read-only, or a file that nobody may write.
    pub read_only: bool,
}

/// Identity of a source, whatever path names it: symbolic and hard links lead to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SourceIdentity {
    /// A regular file.
    File {
        /// The file system's device number (`st_dev`).
        device: u64,
        /// The inode.
        inode: u64,
    },
    /// A block device (`st_rdev`).
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Options of a loop device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopOptions {
    /// Refuse writes.
    pub read_only: bool,
    /// Bypass the page cache.
    pub direct_io: bool,
    /// Owner, at most 63 bytes: kept by the kernel in `lo_file_name`, so that a loop device attached just before
    /// a crash can be found again by [`Block::find_loops`].
    pub tag: String,
}

impl LoopOptions {
    /// An error unless a source that was opened that way can be attached like this.
    pub(crate) fn check(&self, source: &SourceFacts, opened: Access) -> Result<(), Error> {
        let path = source.path.display();
        if !matches!(source.identity, SourceIdentity::File { .. }) {
            return Err(Error::params(format!(
                "{path} is a block device, which takes no loop device"
            )));
        }
        if !self.read_only && opened == Access::ReadOnly {
            return Err(Error::Denied(format!("{path} was opened for reading only")));
        }
        if self.tag.is_empty() || self.tag.len() > 63 || self.tag.contains('\0') {
            return Err(Error::Invalid {
                key: "tag",
                cause: format!("{:?} is not of 1 to 63 bytes", self.tag),
            });
        }
        Ok(())
    }
}

impl LoopDevice {
    /// Tells whether it is the recorded device. Its sequence number may differ: a daemon may have attached it anew,
    /// and ended before it could record that.
    pub(crate) fn is(&self, recorded: &Self) -> bool {
        self.backing == recorded.backing
            && self.options.tag == recorded.options.tag
            && self.options.read_only == recorded.options.read_only
    }
}

/// A loop device of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopDevice {
    /// `N` of `/dev/loopN`.
    pub number: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// The kernel's sequence number of this use of it (it changes when the loop device is set up anew).
    pub diskseq: Option<u64>,
    /// The file behind it.
    pub backing: SourceIdentity,
    /// Path of that file when the device was attached.
    pub backing_path: PathBuf,
    /// Options that it was attached with.
    pub options: LoopOptions,
}

/// Files, block devices and loop devices.
///
/// Loop devices are set up with autoclear and a descriptor held in here, so that the kernel itself takes down what a
/// crash leaves behind, and keeps what blkback has open.
pub trait Block: Send + Sync {
    /// Opens a path within the grant, without following anything that leads out of it.
    fn open(&self, grant: &BlockGrant, path: &str, access: Access) -> Result<Source, Error>;

    /// Closes a source. One that is not open is no error.
    fn close(&self, source: u64);

    /// Names another user of a source on this host: a mount point, a loop device that is not one of `ours`.
    /// With `Access::ReadOnly`, read-only mounts do not count.
    fn used_by(&self, source: &Source, access: Access, ours: &[u32]) -> Result<Option<String>, Error>;

    /// Attaches a free loop device to a source that is a file, and holds its descriptor.
    fn attach_loop(&self, grant: &BlockGrant, source: &Source, options: &LoopOptions) -> Result<LoopDevice, Error>;

    /// Takes hold again, after a restart, of a loop device that was attached before: verifies that it is the same
    /// (backing file and tag), and holds its descriptor. If the kernel has cleared it meanwhile, and its number is free
    /// and its file is still there, attaches it anew under the same number. `Ok(None)` if it is gone for good.
    fn adopt_loop(&self, grant: &BlockGrant, device: &LoopDevice) -> Result<Option<LoopDevice>, Error>;

    /// The loop devices whose tag begins so, held by us or by others.
    fn find_loops(&self, tag: &str) -> Result<Vec<LoopDevice>, Error>;

    /// Lets a loop device of ours go: it disappears now, or when its last user closes it. One that is gone, or that is
    /// no longer the same, is left alone, and is no error.
    fn detach_loop(&self, device: &LoopDevice) -> Result<(), Error>;
}

/// The most that Linux takes for a path, with its NUL (include/uapi/linux/limits.h, `PATH_MAX`).
const PATH_MAX: usize = 4096;

/// The absolute path that a request means: itself, or what lies below /dev (`expand_dev` of Xen's block script).
pub(crate) fn absolute(wanted: &str) -> Result<PathBuf, Error> {
    if wanted.is_empty() {
        return Err(Error::params("is empty"));
    }
    if wanted.len() >= PATH_MAX {
        return Err(Error::params(format!(
            "a path of {} bytes is longer than the {} allowed",
            wanted.len(),
            PATH_MAX - 1
        )));
    }
    if wanted.contains(char::is_control) {
        return Err(Error::params(format!(
            "the path {wanted:?} contains a control character"
        )));
    }
    let mut path = if wanted.starts_with('/') {
        PathBuf::from("/")
    } else {
        PathBuf::from("/dev")
    };
    for component in wanted.split('/').filter(|component| !component.is_empty()) {
        if matches!(component, "." | "..") {
            return Err(Error::params(format!("the path {wanted:?} contains {component:?}")));
        }
        path.push(component);
    }
    Ok(path)
}
