//! Implementation of the traits on Linux.

mod addresses;
mod appearances;
mod block;
mod forwarding;
mod ioctl;
mod links;
mod locks;
mod loops;
mod netlink;
mod network;
mod nftables;
mod process;
mod resolve;
mod retry;
mod source;
mod usage;

pub(crate) use self::block::LinuxBlock;
pub(crate) use self::locks::LinuxLocks;
pub(crate) use self::network::LinuxNetwork;
pub(crate) use self::nftables::LinuxFirewall;
pub(crate) use self::process::LinuxProcess;
