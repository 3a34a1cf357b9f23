//! Files and block devices within a grant, and loop devices on them.

pub(crate) mod lookup;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    grant::{Access, BlockGrant},
};

/// An open file or block device: its handle, and the facts of its descriptor.
#[derive(Clone, Debug)]
pub struct Source {
    /// Handle for [`Block::close`], valid while the source is open.
    pub id: u64,
    /// Facts from its descriptor.
    pub facts: SourceFacts,
}

/// Facts about a source, read from its descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// Identity, which no other source has.
    pub identity: SourceIdentity,
    /// Path without symbolic links.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// The kernel's sequence number of the disk, for a block device.
    pub diskseq: Option<u64>,
    /// A block device set read-only, or a file that nobody may write.
    pub read_only: bool,
}

/// Identity of a source. All symbolic and hard links to a file have the same one.
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
    /// Owner, at most 63 bytes. The kernel stores it in `lo_file_name`, so that [`Block::find_loops`] finds a loop
    /// device that was attached just before a crash.
    pub tag: String,
}

impl LoopOptions {
    /// Returns an error unless a source opened with this access can be attached with these options.
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
    /// Tells whether this is the recorded device. The sequence number may differ: an earlier daemon may have attached
    /// the device again, and crashed before it recorded that.
    pub(crate) fn is(&self, recorded: &Self) -> bool {
        self.backing == recorded.backing
            && self.options.tag == recorded.options.tag
            && self.options.read_only == recorded.options.read_only
    }
}

/// A loop device that the daemon attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopDevice {
    /// `N` of `/dev/loopN`.
    pub number: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// The kernel's sequence number of this attachment. The next attachment of the loop device has another one.
    pub diskseq: Option<u64>,
    /// Backing file.
    pub backing: SourceIdentity,
    /// Path of the backing file when the device was attached.
    pub backing_path: PathBuf,
    /// Options of the attachment.
    pub options: LoopOptions,
}

/// Files, block devices and loop devices.
///
/// Loop devices have autoclear set, and the implementation holds a descriptor of each. After a crash the kernel thus
/// clears those that nobody uses, and keeps those that blkback has open.
pub trait Block: Send + Sync {
    /// Opens a path within the grant. Follows no link that leads out of it.
    fn open(&self, grant: &BlockGrant, path: &str, access: Access) -> Result<Source, Error>;

    /// Closes a source. A source that is not open is no error.
    fn close(&self, source: u64);

    /// Names another user of a source on this host: a mount point, or a loop device that is not among `ours`. With
    /// `Access::ReadOnly`, read-only mounts do not count.
    fn used_by(&self, source: &Source, access: Access, ours: &[u32]) -> Result<Option<String>, Error>;

    /// Attaches a free loop device to a source that is a file, and holds its descriptor.
    fn attach_loop(&self, grant: &BlockGrant, source: &Source, options: &LoopOptions) -> Result<LoopDevice, Error>;

    /// Adopts a loop device that an earlier daemon attached: verifies that backing file and tag are the same, and holds
    /// a descriptor of it. If the kernel has cleared the device, attaches the file again under the same number. Returns
    /// `Ok(None)` if the number is in use or the file is gone.
    fn adopt_loop(&self, grant: &BlockGrant, device: &LoopDevice) -> Result<Option<LoopDevice>, Error>;

    /// Returns all loop devices of the host whose tag begins with `tag`.
    fn find_loops(&self, tag: &str) -> Result<Vec<LoopDevice>, Error>;

    /// Detaches a loop device: the kernel clears it now, or when its last user closes it. A device that is gone, or
    /// that is attached to something else by now, is no error.
    fn detach_loop(&self, device: &LoopDevice) -> Result<(), Error>;
}

/// Maximum length of a path with its NUL (include/uapi/linux/limits.h).
const PATH_MAX: usize = 4096;

/// Returns the absolute path for a `params` node. A relative path is below /dev (`expand_dev` of Xen's block script).
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
