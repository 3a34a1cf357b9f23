//! Handler for disks on iSCSI targets: does with `iscsiadm` what `/etc/xen/scripts/block-iscsi` does on `add`.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `params` | `iqn=IQN,portal=ADDRESS[:PORT][,multipath=y]` |
//! | `mode` | as for any disk |
//!
//! | helper | purpose |
//! | --- | --- |
//! | `iscsiadm` | logs in; the daemon calls it to log out when the device goes |
//! | `multipath` | with `multipath=y`, shows the name in `/dev/mapper` |
//!
//! Unlike the script it distinguishes targets whose names begin alike, and gives up when the disk does not appear,
//! which the script intends but never does.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod target;

use target::Target;
use xenplug_sdk::{
    Command, Connection, Description, Device, Error, Handler, Undo,
    block::{Access, Source},
    disk::Disk,
};

/// Milliseconds to wait for the disk, less than the default deadline of a handler.
const SETTLING: u32 = 8_000;

/// `ISCSI_ERR_NO_OBJS_FOUND` (open-iscsi, include/iscsi_err.h): exit code if there is no such session.
const NO_OBJECTS: u32 = 21;

/// Handler for disks on iSCSI targets.
struct Iscsi;

impl Handler for Iscsi {
    fn describe() -> Description {
        Description::new("disks on iSCSI targets, with iscsiadm")
            .kind("vbd")
            .script("block-iscsi")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let target = Target::parse(device.required("params")?)?;
        find(&target)?;
        log_in(&target)?;
        let mut path = target.disk();
        let found = Source::open_when_there(&path, Access::ReadOnly, SETTLING).map_err(|error| error.of("params"))?;
        if target.multipath {
            path = multipath(&found.facts().path)?;
        }
        Disk::at(device, &path)?.connect()
    }
}

fn iscsiadm() -> Command {
    Command::of("iscsiadm").arg("-m")
}

/// Checks that the target exists and has no session: its logout would take the disk of another guest away.
fn find(target: &Target) -> Result<(), Error> {
    let sessions = iscsiadm().arg("session").run()?;
    if target.is_in(&sessions.stdout) {
        return Err(Error::Busy(format!("there is a session with {} already", target.iqn)));
    }
    let discover = iscsiadm().args(["discovery", "-t", "st", "-p"]).arg(&*target.portal);
    if !target.is_in(&discover.expect(discover.run())?) {
        return Err(Error::NotFound(format!(
            "{} has no target {}",
            target.portal, target.iqn
        )));
    }
    Ok(())
}

fn log_in(target: &Target) -> Result<(), Error> {
    let node = iscsiadm()
        .args(["node", "--targetname"])
        .arg(&*target.iqn)
        .arg("-p")
        .arg(&*target.portal);
    let log_in = node.clone().arg("--login");
    let log_out = Undo::by(node.arg("--logout")).settled_by(NO_OBJECTS);
    log_in.expect(log_in.apply(log_out)).map(drop)
}

/// Finds the multipath device that has a disk as one of its paths.
fn multipath(disk: &str) -> Result<String, Error> {
    let list = Command::of("multipath").arg("-ll").arg(disk);
    let text = list.expect(list.run())?;
    let name = text.split_whitespace().next();
    name.filter(|name| !name.contains('/') && !name.starts_with('.'))
        .map(|name| format!("/dev/mapper/{name}"))
        .ok_or_else(|| Error::NotFound(format!("no multipath device has {disk}")))
}

xenplug_sdk::export!(Iscsi);
