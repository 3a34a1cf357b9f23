//! Disks as the nodes of their devices describe them, and the common steps of all handlers: open, claim, publish.

pub use crate::image::Image;
use crate::{
    Connection, Device, Error,
    block::{Access, LoopOptions, Sharing, Source, SourceFacts, SourceKind},
};

/// Access and sharing of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Read access, shared with other readers.
    ReadOnly,
    /// Read and write access, exclusive.
    ReadWrite,
    /// Read and write access, shared. The guests coordinate it themselves (a cluster file system).
    Shared,
}

impl Mode {
    /// Parses `r`, `ro`, `w`, `rw`, `w!` or `rw!`: a `w` anywhere allows writes, and a `!` with it allows sharing
    /// (tools/hotplug/Linux/block-common.sh, `canonicalise_mode`).
    pub fn parse(text: &str) -> Self {
        match (text.contains('w'), text.contains('!')) {
            (false, _) => Self::ReadOnly,
            (true, false) => Self::ReadWrite,
            (true, true) => Self::Shared,
        }
    }
}

/// A disk as its device describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Absolute path.
    pub path: String,
    /// Access and sharing of the node `mode`.
    pub mode: Mode,
    /// Set if `device-type` is `cdrom`, which is read-only whatever the mode.
    pub cdrom: bool,
    /// Value of `direct-io-safe`: the loop device of a file may bypass the page cache.
    pub direct_io: bool,
}

impl Disk {
    /// Reads the disk that `params` names.
    pub fn of(device: &Device) -> Result<Self, Error> {
        Self::at(device, device.required("params")?)
    }

    /// Reads the disk, but with another path, such as that of a device that a helper made.
    pub fn at(device: &Device, path: &str) -> Result<Self, Error> {
        Ok(Self {
            path: absolute(path),
            mode: Mode::parse(device.required("mode")?),
            cdrom: device.node("device-type") == Some("cdrom"),
            direct_io: device.flag("direct-io-safe")?,
        })
    }

    /// Opens and claims the disk, and attaches a loop device if it is a file. Returns the nodes to publish.
    pub fn connect(&self) -> Result<Connection, Error> {
        let source = self.open()?;
        source.claim(self.sharing()).map_err(|error| error.of("params"))?;
        self.publish(&source)
    }

    /// Opens the disk.
    pub fn open(&self) -> Result<Source, Error> {
        let source = Source::open(&self.path, self.access()).map_err(|error| error.of("params"))?;
        self.check(&source.facts())?;
        Ok(source)
    }

    /// Attaches a loop device if the disk is a file. Returns the nodes to publish: `physical-device` and
    /// `physical-device-path`, and for a file `node`, the path of its loop device.
    pub fn publish(&self, source: &Source) -> Result<Connection, Error> {
        let facts = source.facts();
        let mut connection = Connection::new();
        let (number, path) = match facts.kind {
            SourceKind::BlockDevice => (facts.device, facts.path),
            SourceKind::File => {
                let attached = source.attach_loop(LoopOptions {
                    read_only: self.read_only(),
                    direct_io: self.direct_io,
                })?;
                connection = connection.backend("node", attached.path());
                (Some(attached.device()), attached.path())
            }
        };
        let number = number.ok_or("the host knows a block device without a number")?;
        // Last, since the kernel acts on it (drivers/block/xen-blkback/xenbus.c, `backend_changed`).
        Ok(connection
            .backend("physical-device-path", path)
            .backend("physical-device", number.to_string()))
    }

    /// Tells whether the disk is read-only.
    pub fn read_only(&self) -> bool {
        self.cdrom || self.mode == Mode::ReadOnly
    }

    /// Returns the access to open the disk with.
    pub fn access(&self) -> Access {
        if self.read_only() {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        }
    }

    /// Returns the sharing to claim the disk with.
    pub fn sharing(&self) -> Sharing {
        match self.mode {
            Mode::Shared => Sharing::Unchecked,
            Mode::ReadWrite if !self.cdrom => Sharing::Alone,
            Mode::ReadWrite | Mode::ReadOnly => Sharing::Readers,
        }
    }

    /// Refuses a block device that could not be protected against writes. A file's loop device refuses writes, but
    /// blkback opens a block device by itself, and reads only `mode`.
    pub fn check(&self, facts: &SourceFacts) -> Result<(), Error> {
        let writable = facts.kind == SourceKind::BlockDevice && !facts.read_only;
        if self.cdrom && self.mode != Mode::ReadOnly && writable {
            return Err(Error::invalid(
                "mode",
                "has to be `r` for a CD-ROM on a block device that can be written",
            ));
        }
        Ok(())
    }
}

/// Returns the absolute path. A relative one is below `/dev` (tools/hotplug/Linux/block, `expand_dev`).
fn absolute(params: &str) -> String {
    if params.starts_with('/') {
        params.into()
    } else {
        format!("/dev/{params}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::DeviceNumber;

    fn disk(nodes: &[(&str, &str)]) -> Result<Disk, Error> {
        Disk::of(&Device::sample("vbd", nodes))
    }

    fn block_device(read_only: bool) -> SourceFacts {
        SourceFacts {
            kind: SourceKind::BlockDevice,
            path: "/dev/sr0".into(),
            size: 2048,
            device: Some(DeviceNumber { major: 11, minor: 0 }),
            diskseq: None,
            read_only,
        }
    }

    #[test]
    fn modes_are_read_as_the_script_reads_them() {
        for (text, mode) in [
            ("r", Mode::ReadOnly),
            ("ro", Mode::ReadOnly),
            ("r!", Mode::ReadOnly),
            ("!", Mode::ReadOnly),
            ("w", Mode::ReadWrite),
            ("rw", Mode::ReadWrite),
            ("w!", Mode::Shared),
            ("rw!", Mode::Shared),
            ("!w", Mode::Shared),
        ] {
            assert_eq!(Mode::parse(text), mode, "{text}");
        }
    }

    #[test]
    fn mode_decides_access_and_sharing() {
        for (mode, access, sharing) in [
            ("r", Access::ReadOnly, Sharing::Readers),
            ("w", Access::ReadWrite, Sharing::Alone),
            ("w!", Access::ReadWrite, Sharing::Unchecked),
        ] {
            let disk = disk(&[("mode", mode), ("params", "/dev/sda")]).unwrap();
            assert_eq!((disk.access(), disk.sharing()), (access, sharing), "{mode}");
        }
    }

    #[test]
    fn bare_name_is_below_dev() {
        assert_eq!(absolute("sda1"), "/dev/sda1");
        assert_eq!(absolute("vg0/root"), "/dev/vg0/root");
        assert_eq!(absolute("/srv/disk.img"), "/srv/disk.img");
    }

    #[test]
    fn params_and_mode_have_to_be_there() {
        for (nodes, error) in [
            (&[("mode", "w")][..], Error::invalid("params", "is missing")),
            (&[("mode", "w"), ("params", "")], Error::invalid("params", "is empty")),
            (&[("params", "/dev/sda")], Error::invalid("mode", "is missing")),
            (
                &[("params", "/dev/sda"), ("mode", "")],
                Error::invalid("mode", "is empty"),
            ),
        ] {
            assert_eq!(disk(nodes), Err(error), "{nodes:?}");
        }
    }

    #[test]
    fn cdrom_is_read_only_whatever_its_mode() {
        let nodes = [("mode", "w"), ("params", "/srv/install.iso"), ("device-type", "cdrom")];
        let disk = disk(&nodes).unwrap();
        assert!(disk.read_only());
        assert_eq!((disk.access(), disk.sharing()), (Access::ReadOnly, Sharing::Readers));
    }

    #[test]
    fn writable_cdrom_is_refused() {
        let cdrom = |mode| {
            let nodes = [("mode", mode), ("params", "/dev/sr0"), ("device-type", "cdrom")];
            disk(&nodes).unwrap()
        };
        assert!(cdrom("w").check(&block_device(false)).is_err());
        assert_eq!(cdrom("w").check(&block_device(true)), Ok(()));
        assert_eq!(cdrom("r").check(&block_device(false)), Ok(()));
    }

    #[test]
    fn direct_io_is_asked_for() {
        let nodes = |value| [("mode", "w"), ("params", "/srv/disk.img"), ("direct-io-safe", value)];
        assert!(disk(&nodes("1")).unwrap().direct_io);
        assert!(!disk(&nodes("0")).unwrap().direct_io);
        assert!(disk(&nodes("yes")).is_err());
    }
}
