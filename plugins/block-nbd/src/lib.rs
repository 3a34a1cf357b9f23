//! The handler for disks on NBD servers: what `/etc/xen/scripts/block-nbd` was for, with the same `nbd-client`.
//!
//! That script takes the server from arguments that no toolstack gives it (they are xend's of 2005), and so has never
//! worked with libxl. Here the server is the disk's target, as for the other scripts: a URI of NBD's, `HOST:PORT`, or
//! `HOST PORT` in the words of `nbd-client`. `block-enbd` is the same for ENBD, whose module ended with Linux 2.6: what
//! names it is served like `block-nbd`.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `params` | `nbd://HOST[:PORT][/EXPORT]`, `nbd+unix:///[EXPORT]?socket=PATH`, `HOST:PORT[/EXPORT]`, `HOST PORT` |
//! | `mode` | as for any disk |
//!
//! | setting | meaning |
//! | --- | --- |
//! | `devices` | how many devices there are, `/dev/nbd0` and so on: `nbds_max` of the kernel's module, 16 unless set |
//!
//! | helper | what for |
//! | --- | --- |
//! | `nbd-client` | to look for a free device and to connect it; the host has it disconnect when the device goes |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod server;

use server::Server;
use xenplug_sdk::{
    Command, Connection, Description, Device, Error, Handler, Undo,
    block::{Access, Sharing, Source},
    config,
    disk::Disk,
};

/// `nbds_max` (linux/drivers/block/nbd.c).
const DEVICES: u32 = 16;

/// Exit code of `nbd-client -c` for a device that is not connected. Other codes than this and 0 are errors (nbd-client.c,
/// `check_conn`).
const NOT_CONNECTED: u32 = 1;

/// Disks on NBD servers.
struct Nbd;

impl Handler for Nbd {
    fn describe() -> Description {
        Description::new("disks on NBD servers, with nbd-client")
            .kind("vbd")
            .script("block-nbd")
            .script("block-enbd")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let server = Server::parse(device.required("params")?)?;
        let path = free_device()?;
        let connect = client().args(server.arguments(&path));
        // Of a device that is not connected it says 0, too: neither ioctl nor netlink takes that for an error
        // (linux/drivers/block/nbd.c, `nbd_disconnect`, `nbd_genl_disconnect`).
        let disconnect = Undo::by(client().args(["-d", &path]));
        connect.expect(connect.apply(disconnect))?;
        // Anew: what it is, it is since it was connected.
        let disk = Disk::at(device, &path)?;
        disk.publish(&disk.open()?)
    }
}

fn client() -> Command {
    Command::of("nbd-client")
}

/// Finds a device that nobody has connected, and claims it, so that no other guest's handler takes it meanwhile.
fn free_device() -> Result<String, Error> {
    let devices = match config::value("devices") {
        None => DEVICES,
        Some(text) => text
            .parse()
            .map_err(|_| format!("setting `devices`: `{text}` is not a number"))?,
    };
    for path in (0..devices).map(|number| format!("/dev/nbd{number}")) {
        let source = match Source::open(&path, Access::ReadWrite) {
            Ok(source) => source,
            Err(Error::NotFound(_)) => continue,
            Err(error) => return Err(error),
        };
        let check = client().args(["-c", &path]);
        let checked = check.run()?;
        if checked.code != NOT_CONNECTED {
            // It prints the client's process id.
            check.expect(Ok(checked))?;
            continue;
        }
        match source.claim(Sharing::Alone) {
            Ok(()) => return Ok(path),
            Err(Error::Busy(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unavailable(format!(
        "no NBD device is free among the {devices} of /dev/nbd*: is the kernel's module loaded?"
    )))
}

xenplug_sdk::export!(Nbd);
