//! The handler for block devices and disk image files: what `/etc/xen/scripts/block` does on `add`.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `params` | an absolute path, or a name below `/dev` |
//! | `mode` | with a `w` it may be written, by this guest alone; with `w` and `!` by others too (a cluster file system) |
//! | `device-type` | `cdrom` is read-only, whatever the mode |
//! | `direct-io-safe` | `1` lets the loop device of a file bypass the page cache |
//!
//! | node published | meaning |
//! | --- | --- |
//! | `physical-device` | the device's number, in hexadecimal; blkback opens it as soon as it is there |
//! | `physical-device-path` | its path |
//! | `node` | for a file the path of its loop device |
//!
//! Unlike the script it fails a device whose `params` names nothing: the script reports it as connected.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod disk;

use disk::Disk;
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    block::{LoopOptions, Source, SourceKind},
};

/// Block devices and disk image files.
struct Phy;

impl Handler for Phy {
    fn describe() -> Description {
        Description::new("block devices, and disk images on loop devices")
            .kind("vbd")
            .script("block")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let disk = Disk::of(device)?;
        let source = Source::open(&disk.path, disk.access()).map_err(|error| error.of("params"))?;
        let facts = source.facts();
        disk.check(&facts)?;
        source.claim(disk.sharing()).map_err(|error| error.of("params"))?;

        let (number, path) = match facts.kind {
            SourceKind::BlockDevice => (facts.device, facts.path),
            SourceKind::File => {
                let options = LoopOptions {
                    read_only: disk.read_only(),
                    direct_io: disk.direct_io,
                };
                let attached = source.attach_loop(options)?;
                (Some(attached.device()), attached.path())
            }
        };
        let number = number.ok_or("the host knows a block device without a number")?;

        let mut connection = Connection::new();
        if facts.kind == SourceKind::File {
            connection = connection.backend("node", path.clone());
        }
        // Last, since the kernel acts on it (drivers/block/xen-blkback/xenbus.c, `backend_changed`).
        Ok(connection
            .backend("physical-device-path", path)
            .backend("physical-device", number.to_string()))
    }
}

xenplug_sdk::export!(Phy);
