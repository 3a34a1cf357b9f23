//! The machine itself: Linux.

mod addresses;
mod appearances;
mod block;
mod dhcp;
mod forwarding;
mod ioctl;
mod links;
mod locks;
mod loops;
mod netlink;
mod nftables;
mod process;
mod resolve;
mod usage;

use std::io;

pub(crate) use self::block::LinuxBlock;
pub(crate) use self::dhcp::LinuxDhcp;
pub(crate) use self::links::LinuxNetwork;
pub(crate) use self::locks::LinuxLocks;
pub(crate) use self::nftables::LinuxFirewall;
pub(crate) use self::process::LinuxProcess;

/// Calls again what a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
