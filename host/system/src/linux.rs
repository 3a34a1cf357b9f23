//! The machine itself: Linux.

mod block;
mod ioctl;
mod loops;
mod pending;
mod resolve;
mod usage;

pub(crate) use self::block::LinuxBlock;
pub(crate) use self::pending::Pending;
