//! Handler for disks on NBD servers, with `nbd-client`, in place of `/etc/xen/scripts/block-nbd`.
//!
//! That script takes the server from arguments of xend (2005), which no toolstack passes, and so never worked with
//! libxl. Here the disk's target names the server, as for the other scripts: an NBD URI, `HOST:PORT`, or `HOST PORT` as
//! for `nbd-client`. The handler serves `block-enbd` in the same way. Its ENBD module ended with Linux 2.6.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `params` | `nbd://HOST[:PORT][/EXPORT]`, `nbd+unix:///[EXPORT]?socket=PATH`, `HOST:PORT[/EXPORT]`, `HOST PORT` |
//! | `mode` | as for any disk |
//!
//! | setting | meaning |
//! | --- | --- |
//! | `devices` | number of devices `/dev/nbd0` and so on, `nbds_max` of the kernel's module; 16 by default |
//!
//! | helper | purpose |
//! | --- | --- |
//! | `nbd-client` | finds a free device and connects it; the daemon calls it to disconnect when the device goes |

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

/// Exit code of `nbd-client -c` for a device that is not connected. Other codes than this and 0 are errors
/// (nbd-client.c, `check_conn`).
const NOT_CONNECTED: u32 = 1;

/// Handler for disks on NBD servers.
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
        // The exit code is 0 also for a device that is not connected: neither ioctl nor netlink reports an error then
        // (linux/drivers/block/nbd.c, `nbd_disconnect`, `nbd_genl_disconnect`).
        let disconnect = Undo::by(client().args(["-d", &path]));
        connect.expect(connect.apply(disconnect))?;
        // Opened again, because the size is that of the export only since the connection.
        let disk = Disk::at(device, &path)?;
        disk.publish(&disk.open()?)
    }
}

fn client() -> Command {
    Command::of("nbd-client")
}

/// Finds a device that is not connected, and claims it, so that the handler of no other guest takes it meanwhile.
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
            // The device is connected, and the output is the client's process id.
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
