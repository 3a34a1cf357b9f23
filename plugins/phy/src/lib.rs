//! Handler for block devices and disk image files: does what `/etc/xen/scripts/block` does on `add`.
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
//! Unlike the script it fails a device whose `params` names nothing. The script reports such a device as connected.

use xenplug_sdk::{Connection, Description, Device, Error, Handler, disk::Disk};

/// Handler for block devices and disk image files.
struct Phy;

impl Handler for Phy {
    fn describe() -> Description {
        Description::new("block devices, and disk images on loop devices")
            .kind("vbd")
            .script("block")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        Disk::of(device)?.connect()
    }
}

xenplug_sdk::export!(Phy);
