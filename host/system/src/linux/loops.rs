//! Loop devices: attached with one ioctl, cleared by the kernel when nobody has them open, recognized by their tag.

use std::{
    collections::{HashMap, HashSet},
    fs::read_dir,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Mutex, OnceLock},
    thread::sleep,
    time::Duration,
};

use rustix::{
    fs::{self, FileType, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use super::{
    ioctl::{self, LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, LO_FLAGS_READ_ONLY, LoopInfo},
    retry::retry,
    source::OpenSource,
};
use crate::{
    Error,
    block::{LoopDevice, LoopOptions, SourceIdentity},
    grant::{Access, BlockGrant},
    sync::lock,
};

/// Attempts to attach a free device while other processes take it first.
const ATTEMPTS: u32 = 64;

/// Milliseconds to wait for a device's node (made by udev where /dev is no devtmpfs), or for the end of its last use.
const WAIT_MS: u32 = 100;

/// `LOOP_MAJOR` (include/uapi/linux/major.h).
const LOOP_MAJOR: u32 = 7;

/// Loop devices of the daemon, each with a descriptor that keeps it attached.
#[derive(Debug, Default)]
pub(super) struct Loops {
    control: OnceLock<OwnedFd>,
    held: Mutex<HashMap<u32, Held>>,
    /// Numbers that threads are about to attach. The kernel regards them as free until then, and attaching takes as
    /// long as the file's disk needs to flush its cache.
    reserved: Mutex<HashSet<u32>>,
}

#[derive(Debug)]
struct Held {
    fd: OwnedFd,
    device: LoopDevice,
}

impl Loops {
    /// Tells whether the daemon holds a device.
    pub(super) fn holds(&self, number: u32) -> bool {
        lock(&self.held).contains_key(&number)
    }

    /// Attaches a free device.
    pub(super) fn attach(&self, source: &OpenSource, options: &LoopOptions) -> Result<LoopDevice, Error> {
        options.check(&source.facts, source.access)?;
        let mut lost = HashSet::new();
        for _ in 0..ATTEMPTS {
            let number = self.reserve(&lost)?;
            let result = open(number, options.read_only)
                .map_err(|errno| Error::kernel(format!("open /dev/loop{number}"), errno))
                .and_then(|fd| configure(number, fd, source, options))
                .map(|held| self.hold(held));
            lock(&self.reserved).remove(&number);
            match result {
                Err(Error::Busy(_)) => lost.insert(number),
                result => return result,
            };
        }
        Err(Error::kernel(
            format!("find a free loop device for {}", source.facts.path.display()),
            Errno::BUSY,
        ))
    }

    /// Reserves a free device that no other thread has reserved, and that is not among the `lost` ones.
    fn reserve(&self, lost: &HashSet<u32>) -> Result<u32, Error> {
        let control = self.control()?.as_fd();
        let mut reserved = lock(&self.reserved);
        let first = ioctl::loop_free(control).map_err(|errno| Error::kernel("find a free loop device", errno))?;
        let number = (first..)
            .find(|number| !reserved.contains(number) && !lost.contains(number) && !self.holds(*number))
            .unwrap_or(first);
        reserved.insert(number);
        drop(reserved);
        if number != first {
            self.make(number)?;
        }
        Ok(number)
    }

    /// Makes the device with this number if it does not exist.
    fn make(&self, number: u32) -> Result<(), Error> {
        match ioctl::loop_add(self.control()?.as_fd(), number) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Error::kernel(format!("make /dev/loop{number}"), errno)),
        }
    }

    /// Adopts a device (see [`Block::adopt_loop`](crate::Block::adopt_loop)).
    pub(super) fn adopt(&self, grant: &BlockGrant, device: &LoopDevice) -> Result<Option<LoopDevice>, Error> {
        let number = device.number;
        let kernel = |errno| Error::kernel(format!("open /dev/loop{number}"), errno);
        if let Some(held) = lock(&self.held).get(&number) {
            return Ok(Some(held.device.clone()).filter(|held| held.is(device)));
        }
        self.make(number)?;
        let fd = open(number, device.options.read_only).map_err(kernel)?;
        match ioctl::loop_status(fd.as_fd()) {
            Ok(info) => {
                let found = describe(number, &fd, &info, device.backing_path.clone()).map_err(kernel)?;
                if !found.is(device) {
                    return Ok(None);
                }
                Ok(Some(self.hold(Held { fd, device: found })))
            }
            Err(Errno::NXIO) => {
                let path = device.backing_path.to_str().unwrap_or_default();
                let access = if device.options.read_only {
                    Access::ReadOnly
                } else {
                    Access::ReadWrite
                };
                let source = match OpenSource::open(grant, path, access) {
                    Ok(source) if source.facts.identity == device.backing => source,
                    Ok(_) | Err(Error::NotFound(_)) => return Ok(None),
                    Err(error) => return Err(error),
                };
                match configure(number, fd, &source, &device.options) {
                    Ok(held) => Ok(Some(self.hold(held))),
                    Err(Error::Busy(_)) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Err(errno) => Err(kernel(errno)),
        }
    }

    /// Detaches a device (see [`Block::detach_loop`](crate::Block::detach_loop)).
    pub(super) fn detach(&self, device: &LoopDevice) -> Result<(), Error> {
        let number = device.number;
        let fd = {
            let mut held = lock(&self.held);
            match held.get(&number) {
                // The device was attached again since, so the attachment to undo is gone.
                Some(held) if held.device.diskseq != device.diskseq => return Ok(()),
                _ => held.remove(&number).map(|held| held.fd),
            }
        };
        let fd = match fd.map_or_else(|| open_once(number, true), Ok) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NXIO | Errno::NODEV) => return Ok(()),
            Err(errno) => return Err(Error::kernel(format!("open /dev/loop{number}"), errno)),
        };
        let info = match ioctl::loop_status(fd.as_fd()) {
            Ok(info) => info,
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(Error::kernel(format!("look at /dev/loop{number}"), errno)),
        };
        // As long as the daemon has it open, nobody can clear it and attach it to something else.
        if backing(&info) != device.backing || info.name() != device.options.tag.as_bytes() {
            return Ok(());
        }
        match ioctl::loop_clear(fd.as_fd()) {
            Ok(()) | Err(Errno::NXIO) => Ok(()),
            Err(errno) => Err(Error::kernel(format!("detach /dev/loop{number}"), errno)),
        }
    }

    fn hold(&self, held: Held) -> LoopDevice {
        let device = held.device.clone();
        // An older descriptor with the same number belongs to an attachment that has ended.
        let older = lock(&self.held).insert(device.number, held);
        drop(older);
        device
    }

    fn control(&self) -> Result<&OwnedFd, Error> {
        if let Some(control) = self.control.get() {
            return Ok(control);
        }
        let control = retry_on_intr(|| fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()))
            .map_err(|errno| Error::kernel("open /dev/loop-control", errno))?;
        Ok(self.control.get_or_init(|| control))
    }
}

/// Returns the devices whose tag begins with `tag`.
pub(super) fn find(tag: &str) -> Result<Vec<LoopDevice>, Error> {
    let tagged = bound()?.into_iter().filter_map(|number| {
        let fd = open_once(number, true).ok()?;
        let info = ioctl::loop_status(fd.as_fd())
            .ok()
            .filter(|info| info.name().starts_with(tag.as_bytes()))?;
        let path = std::fs::read(format!("/sys/block/loop{number}/loop/backing_file")).ok()?;
        let path = String::from_utf8_lossy(&path);
        let path = path.trim_end_matches('\n');
        let path = PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(path));
        describe(number, &fd, &info, path).ok()
    });
    Ok(tagged.collect())
}

/// Returns the numbers of the attached devices.
pub(super) fn bound() -> Result<Vec<u32>, Error> {
    let entries = retry(|| read_dir("/sys/block")).map_err(|error| Error::io("read /sys/block", &error))?;
    let numbers = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let number = entry.file_name().to_str()?.strip_prefix("loop")?.parse().ok()?;
        entry.path().join("loop").is_dir().then_some(number)
    });
    Ok(numbers.collect())
}

/// Reads the state of a device, if it is attached.
pub(super) fn status(number: u32) -> Option<LoopInfo> {
    ioctl::loop_status(open_once(number, true).ok()?.as_fd()).ok()
}

/// Returns the backing file of a device. The kernel reports the same numbers as stat(2) (drivers/block/loop.c,
/// `loop_get_status`).
pub(super) fn backing(info: &LoopInfo) -> SourceIdentity {
    SourceIdentity::File {
        device: info.lo_device,
        inode: info.lo_inode,
    }
}

/// Returns `N` if a block device is `/dev/loopN` or a partition of it.
pub(super) fn number_of(major: u32, minor: u32) -> Option<u32> {
    // Partitions may have BLOCK_EXT_MAJOR, which they share with those of other disks.
    if !matches!(major, LOOP_MAJOR | 259) {
        return None;
    }
    let path = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let name = path.file_name()?.to_str()?.strip_prefix("loop")?;
    name.split('p').next()?.parse().ok()
}

/// Attaches a device that was free. Returns `Busy` if it no longer is.
fn configure(number: u32, fd: OwnedFd, source: &OpenSource, options: &LoopOptions) -> Result<Held, Error> {
    let path = source.facts.path.display();
    let kernel = |errno| Error::kernel(format!("attach /dev/loop{number} to {path}"), errno);
    let mut flags = LO_FLAGS_AUTOCLEAR;
    if options.read_only {
        flags |= LO_FLAGS_READ_ONLY;
    }
    if options.direct_io {
        flags |= LO_FLAGS_DIRECT_IO;
    }
    match ioctl::loop_configure(
        fd.as_fd(),
        source.fd.as_fd(),
        LoopInfo::new(flags, options.tag.as_bytes()),
    ) {
        Ok(()) => {}
        Err(Errno::BUSY) => return Err(Error::Busy(format!("/dev/loop{number} is in use"))),
        Err(errno) => return Err(kernel(errno)),
    }
    // The kernel may refuse direct I/O. All other options have to be as requested.
    let info = ioctl::loop_status(fd.as_fd()).map_err(kernel)?;
    let device = describe(number, &fd, &info, source.facts.path.clone()).map_err(kernel)?;
    if device.backing != source.facts.identity
        || device.options.tag != options.tag
        || device.options.read_only != options.read_only
    {
        return Err(Error::Kernel {
            what: format!("attach /dev/loop{number} to {path}"),
            errno: None,
            source_text: "the kernel attached something else".into(),
        });
    }
    Ok(Held { fd, device })
}

fn describe(number: u32, fd: &OwnedFd, info: &LoopInfo, backing_path: PathBuf) -> Result<LoopDevice, Errno> {
    let stat = fs::fstat(fd)?;
    Ok(LoopDevice {
        number,
        major: fs::major(stat.st_rdev),
        minor: fs::minor(stat.st_rdev),
        diskseq: ioctl::disk_sequence(fd.as_fd()),
        backing: backing(info),
        backing_path,
        options: LoopOptions {
            read_only: info.lo_flags & LO_FLAGS_READ_ONLY != 0,
            direct_io: info.lo_flags & LO_FLAGS_DIRECT_IO != 0,
            tag: String::from_utf8_lossy(info.name()).into_owned(),
        },
    })
}

/// Opens a device, and waits up to [`WAIT_MS`] for it to appear.
fn open(number: u32, read_only: bool) -> Result<OwnedFd, Errno> {
    for _ in 0..WAIT_MS {
        match open_once(number, read_only) {
            Err(Errno::NOENT | Errno::NXIO) => sleep(Duration::from_millis(1)),
            result => return result,
        }
    }
    open_once(number, read_only)
}

fn open_once(number: u32, read_only: bool) -> Result<OwnedFd, Errno> {
    let mode = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let flags = mode | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let fd = retry_on_intr(|| fs::open(format!("/dev/loop{number}"), flags, Mode::empty()))?;
    let stat = fs::fstat(&fd)?;
    let is_loop =
        FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice && fs::major(stat.st_rdev) == LOOP_MAJOR;
    if is_loop { Ok(fd) } else { Err(Errno::NODEV) }
}
