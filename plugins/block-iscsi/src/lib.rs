//! The handler for disks on iSCSI targets: what `/etc/xen/scripts/block-iscsi` does on `add`, with the same `iscsiadm`.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `params` | `iqn=IQN,portal=ADDRESS[:PORT][,multipath=y]` |
//! | `mode` | as for any disk |
//!
//! | helper | what for |
//! | --- | --- |
//! | `iscsiadm` | to log in; the host has it log out when the device goes |
//! | `multipath` | with `multipath=y`, to learn the name in `/dev/mapper` |
//!
//! Unlike the script it takes another target for another one, though the one's name begins with the other's, and gives
//! up when the disk does not come: the script means to, and never does.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod target;

use target::Target;
use xenplug_sdk::{
    Command, Connection, Description, Device, Error, Handler, Undo,
    block::{Access, Source},
    disk::Disk,
};

/// Milliseconds in which the disk has to come: less than an event may take by default.
const SETTLING: u32 = 8_000;

/// `ISCSI_ERR_NO_OBJS_FOUND` (open-iscsi, include/iscsi_err.h): there is no such session, or none at all.
const NO_OBJECTS: u32 = 21;

/// Disks on iSCSI targets.
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

/// Checks that the target is there, and that nobody is logged in: who logs out would take another's disk away.
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

/// The multipath device that has a disk as one of its paths.
fn multipath(disk: &str) -> Result<String, Error> {
    let list = Command::of("multipath").arg("-ll").arg(disk);
    let text = list.expect(list.run())?;
    let name = text.split_whitespace().next();
    name.filter(|name| !name.contains('/') && !name.starts_with('.'))
        .map(|name| format!("/dev/mapper/{name}"))
        .ok_or_else(|| Error::NotFound(format!("no multipath device has {disk}")))
}

xenplug_sdk::export!(Iscsi);
