//! Other users of a file or a block device on this host: mounts, loop devices, the kernel.

use std::{
    fs::File,
    io::{Read, Seek},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{self, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use super::{ioctl, loops, resolve, source::OpenSource};
use crate::{Error, block::SourceIdentity, grant::Access, sync::lock};

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Time to wait for a loop device that is being cleared.
const LINGER: Duration = Duration::from_secs(1);
/// Pause between two checks of that loop device.
const PAUSE: Duration = Duration::from_millis(10);

/// Users of disks. Caches the mounts of the host, and reads them again only when the kernel reports a change.
#[derive(Debug, Default)]
pub(super) struct Usage {
    mounts: Mutex<Option<Mounts>>,
}

impl Usage {
    /// Names the user of a block device: a mount, or an exclusive user in the kernel such as swap, RAID or the device
    /// mapper, which conflicts with write access only.
    pub(super) fn of_block_device(&self, source: &OpenSource, access: Access) -> Result<Option<String>, Error> {
        let SourceIdentity::BlockDevice { major, minor } = source.facts.identity else {
            return Ok(None);
        };
        let mount = self.find_mount(access, |mount| (mount.major, mount.minor) == (major, minor))?;
        if mount.is_some() || access == Access::ReadOnly {
            return Ok(mount);
        }
        let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match retry_on_intr(|| fs::open(resolve::proc_path(&source.fd), flags, Mode::empty())) {
            Err(Errno::BUSY) => Ok(Some(
                "this host, as swap space or for RAID, LVM or another volume".into(),
            )),
            _ => Ok(None),
        }
    }

    /// Names the user of a file: a mounted loop device, or one that is not `ours`. For read access, read-only loop
    /// devices do not count.
    ///
    /// A loop device with autoclear may be about to go: udev opens every device that changes, and a device that was
    /// detached meanwhile stays until udev closes it (drivers/block/loop.c, `loop_clr_fd`).
    ///
    /// The loop devices are read only if another process has the file open in a conflicting way: with a thousand of
    /// them that would take most of the time of an attach.
    pub(super) fn of_file(
        &self,
        source: &OpenSource,
        access: Access,
        ours: impl Fn(u32) -> bool,
    ) -> Result<Option<String>, Error> {
        let identity = Some(source.facts.identity);
        let backs = |number| loops::status(number).is_some_and(|info| Some(loops::backing(&info)) == identity);
        let mount = self.find_mount(access, |mount| mount.loop_number.is_some_and(backs))?;
        if mount.is_some() {
            return Ok(mount);
        }
        let exclusive = access == Access::ReadWrite || source.access == Access::ReadWrite;
        if ioctl::opened_elsewhere(source.fd.as_fd(), exclusive) == Some(false) {
            return Ok(None);
        }
        let harmless =
            |info: &ioctl::LoopInfo| access == Access::ReadOnly && info.lo_flags & ioctl::LO_FLAGS_READ_ONLY != 0;
        let until = Instant::now() + LINGER;
        loop {
            let users = loops::bound()?.into_iter().filter(|number| !ours(*number));
            let user = users.filter_map(|number| Some((number, loops::status(number)?)));
            let is_user = |info: &ioctl::LoopInfo| Some(loops::backing(info)) == identity && !harmless(info);
            let Some((number, info)) = user.into_iter().find(|(_, info)| is_user(info)) else {
                return Ok(None);
            };
            if info.lo_flags & ioctl::LO_FLAGS_AUTOCLEAR == 0 || Instant::now() > until {
                return Ok(Some(format!("/dev/loop{number}")));
            }
            thread::sleep(PAUSE);
        }
    }

    fn find_mount(&self, access: Access, is_it: impl Fn(&Mount) -> bool) -> Result<Option<String>, Error> {
        let kernel = |error: std::io::Error| Error::io(format!("read {MOUNTINFO}"), &error);
        let mut mounts = lock(&self.mounts);
        let mounts = match &mut *mounts {
            Some(mounts) => {
                mounts.refresh().map_err(kernel)?;
                mounts
            }
            none => none.insert(Mounts::read().map_err(kernel)?),
        };
        let mut mounts = mounts
            .mounts
            .iter()
            .filter(|mount| access == Access::ReadWrite || !mount.read_only);
        Ok(mounts
            .find(|mount| is_it(mount))
            .map(|mount| format!("the mount at {}", mount.point)))
    }
}

#[derive(Debug)]
struct Mounts {
    file: File,
    mounts: Vec<Mount>,
}

/// A mount of a block device.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    major: u32,
    minor: u32,
    /// `N` if `/dev/loopN` or a partition of it is mounted.
    loop_number: Option<u32>,
    /// Set if the file system itself is read-only. A read-only mount of a writable file system does not count.
    read_only: bool,
    /// Mount point, in which the kernel escapes characters that would break the line.
    point: String,
}

impl Mounts {
    fn read() -> std::io::Result<Self> {
        let mut mounts = Self {
            file: File::open(MOUNTINFO)?,
            mounts: Vec::new(),
        };
        mounts.read_again()?;
        Ok(mounts)
    }

    /// Reads the mounts again if they changed, which poll(2) reports as POLLPRI (fs/proc_namespace.c, `mounts_poll`).
    fn refresh(&mut self) -> std::io::Result<()> {
        let mut changed = [PollFd::new(&self.file, PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut changed, Some(&now)) {
            Ok(0) => Ok(()),
            _ => self.read_again(),
        }
    }

    fn read_again(&mut self) -> std::io::Result<()> {
        let mut text = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut text)?;
        self.mounts = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(Mount::parse)
            .collect();
        Ok(())
    }
}

impl Mount {
    /// Parses one line of mountinfo (Documentation/filesystems/proc.rst, section 3.5):
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2);
        let (major, minor) = mount.next()?.split_once(':')?;
        let point = mount.nth(1)?.to_owned();
        let mut file_system = file_system.split(' ').skip(1);
        let source = file_system.next()?;
        let read_only = file_system.next()?.split(',').any(|option| option == "ro");
        let (major, minor) = match (major.parse().ok()?, minor.parse().ok()?) {
            // A file system without a device number of its own: btrfs names its block device as the source, others do
            // not.
            (0, _) => {
                let device = Path::new(source)
                    .metadata()
                    .ok()
                    .filter(|source| source.file_type().is_block_device())?;
                (fs::major(device.rdev()), fs::minor(device.rdev()))
            }
            own => own,
        };
        Some(Self {
            major,
            minor,
            loop_number: loops::number_of(major, minor),
            read_only,
            point,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_line_is_parsed() {
        let mount = |line| Mount::parse(line).map(|mount| (mount.major, mount.minor, mount.read_only, mount.point));
        assert_eq!(
            mount("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"),
            Some((98, 0, false, "/mnt2".into()))
        );
        assert_eq!(
            mount(r"36 35 98:17 / /a\040b ro,noatime - ext3 /dev/root ro"),
            Some((98, 17, true, r"/a\040b".into()))
        );
        assert_eq!(mount("24 31 0:22 / /proc rw,relatime - proc proc rw"), None);
        for odd in [
            "",
            " - ",
            "36 35 98 / / rw - ext3 x rw",
            "36 35 98:0 / / rw",
            "36 35 98:0 / / rw - ext3",
        ] {
            assert_eq!(Mount::parse(odd), None, "{odd:?}");
        }
    }
}
