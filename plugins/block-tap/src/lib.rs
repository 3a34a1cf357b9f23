//! The handler for disks that tapdisk serves: what `/etc/xen/scripts/block-tap` does on `add`, with the same `tap-ctl`.
//!
//! It goes the way of Xen 4.19's script, step by step (allocate, spawn, attach, open), each undone by the host, where
//! that of 4.17 runs `tap-ctl create` and looks the process up again by the image's name when the device goes.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `params` | a format of tapdisk's and the path of an image: `aio:/srv/a.img`, `vhd:/srv/b.vhd` |
//! | `mode` | as for any disk |
//!
//! | node published | meaning |
//! | --- | --- |
//! | `physical-device-path` | for `vbd3` the socket `/run/blktap-control/nbd<pid>.<minor>`, for `vbd` the block device |
//! | `physical-device` | for `vbd`, where the kernel has the old module blktap |
//! | `pid`, `minor` | of tapdisk, as Xen 4.19 has them |
//!
//! Unlike the script it checks who else uses the image. Those who may share one share its tapdisk, which ends with the last
//! of them.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod answer;

use xenplug_sdk::{
    Command, Connection, Description, Device, Error, Handler, Undo,
    block::SourceKind,
    disk::{Disk, Image},
};

/// What tap-ctl says, as an error number, of a tapdisk or a disk of it that has gone: `ENOENT`, `ESRCH`, `ENXIO`,
/// `ENODEV`, `EINVAL`, `EPIPE`, `ECONNRESET`, `ECONNREFUSED`.
const GONE: [u32; 8] = [2, 3, 6, 19, 22, 32, 104, 111];

/// Disks that tapdisk serves.
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
        if source.facts().kind != SourceKind::File {
            return Err(Error::invalid("params", format!("{} is not a file", disk.path)));
        }
        source.claim(disk.sharing()).map_err(|error| error.of("params"))?;

        // One tapdisk for all who may use the image at a time: a guest and its stub domain, or readers.
        let path = source.facts().path;
        let once = |name: &str, command: Command, undo| command.expect(command.apply_once(name, undo));
        let answer = once(&format!("minor of {path}"), tap_ctl().arg("allocate"), None)?;
        let minor = answer::minor(&answer)?;
        // Tapdisk goes on in the background, and ends with its last disk, or else by the host.
        let free = undo(tap_ctl().args(["free", "-m", minor])).after_failure();
        let pid = once(&format!("process of {path}"), tap_ctl().arg("spawn"), Some(free))?;
        let pid = answer::pid(&pid)?;
        let of_disk = |word: &str| tap_ctl().args([word, "-p", pid, "-m", minor]);
        once(
            &format!("disk of {path}"),
            of_disk("attach"),
            Some(undo(of_disk("detach"))),
        )?;
        let mut open = of_disk("open").arg("-a").arg(format!("{}:{path}", image.format));
        if disk.read_only() {
            open = open.arg("-R");
        }
        // Who asks for another format or access comes to an image that is open, which tapdisk refuses.
        once(&format!("image {open}"), open.clone(), Some(undo(of_disk("close"))))?;

        let connection = match (&*device.kind, answer.trim()) {
            ("vbd3", _) => {
                Connection::new().backend("physical-device-path", format!("/run/blktap-control/nbd{pid}.{minor}"))
            }
            (_, path) if path.starts_with("/dev/") => {
                let disk = Disk::at(device, path)?;
                disk.publish(&disk.open()?)?
            }
            _ => Err("this kernel has no blktap: tapdisk serves backends of the kind vbd3 alone")?,
        };
        Ok(connection.backend("pid", pid).backend("minor", minor))
    }
}

fn tap_ctl() -> Command {
    Command::of("tap-ctl")
}

fn undo(command: Command) -> Undo {
    GONE.into_iter().fold(Undo::by(command), Undo::settled_by)
}

xenplug_sdk::export!(Tap);
