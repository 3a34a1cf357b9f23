//! Handler for disks that tapdisk serves: does with `tap-ctl` what `/etc/xen/scripts/block-tap` does on `add`.
//!
//! It takes the steps of the script of Xen 4.19 and 4.20 (allocate, spawn, attach, open), and the daemon undoes each.
//! The script of 4.17 and 4.18 runs `tap-ctl create`, and finds the process by the image's name when the device goes. A
//! guest and its stub domain share a tapdisk, which ends with the last of them.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `params` | a format of tapdisk and the path of an image: `aio:/srv/a.img`, `vhd:/dev/vg0/b` |
//! | `mode` | as for any disk |
//!
//! | node published | meaning |
//! | --- | --- |
//! | `pid`, `minor` | process and minor number of tapdisk, as the script of 4.19 writes them |
//! | `physical-device-path` | for `vbd3` the socket `/run/blktap-control/nbd<pid>.<minor>`, for `vbd` the block device |
//! | `physical-device` | for `vbd`, where the kernel has the old module blktap |
//!
//! Unlike the script it opens a read-only disk's image read-only.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod tapdisk;

use tapdisk::{List, Tapdisk};
use xenplug_sdk::{
    Connection, Description, Device, Error, Handler,
    disk::{Disk, Image},
};

/// Handler for disks that tapdisk serves.
struct Tap;

impl Handler for Tap {
    fn describe() -> Description {
        Description::new("disk images that tapdisk serves, with tap-ctl")
            .kind("vbd")
            .kind("vbd3")
            .script("block-tap")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let image = Image::parse(device.required("params")?)?;
        let disk = Disk::at(device, image.path)?;
        let source = disk.open()?;
        source.claim(disk.sharing()).map_err(|error| error.of("params"))?;

        let resolved = format!("{}:{}", image.format, source.facts().path);
        let list = List::read()?;
        // An original script opens the image by the unresolved path.
        let serving = [&resolved, device.required("params")?]
            .into_iter()
            .find_map(|image| list.serving(image));
        let Tapdisk { pid, minor } = match serving {
            Some(tapdisk) => tapdisk.share()?,
            None => Tapdisk::start(&list, &resolved, disk.read_only())?,
        };
        let connection = if device.kind == "vbd3" {
            // No `physical-device`: tapback would use the number of the socket.
            let socket = format!("/run/blktap-control/nbd{pid}.{minor}");
            Connection::new().backend("physical-device-path", socket)
        } else {
            let of_kernel = Disk::at(device, &format!("/dev/xen/blktap-2/tapdev{minor}"))?;
            of_kernel.publish(&of_kernel.open()?)?
        };
        Ok(connection.backend("pid", pid).backend("minor", minor))
    }
}

xenplug_sdk::export!(Tap);
