//! Harness: real parts to run Xenplug on, and players for what the host lacks: xenstored without Xen, a network
//! namespace, a toolstack, the kernel's backends.
//!
//! A test starts a [`TestHost`], which has all of them, and compares it at the end with a [`Baseline`] from the
//! beginning. Dropping the `TestHost` removes everything, also when the test fails.

mod baseline;
mod call;
mod daemon;
mod debian_root;
mod dom0;
mod guest;
pub mod handlers;
mod helper;
mod kernel;
mod locker;
mod loops;
mod namespace;
mod scripts;
mod switch;
mod terminal;
mod test_host;
mod toolstack;
mod xenbus;
mod xenstored;

pub use baseline::{Baseline, Scope};
pub use call::{Answer, Call};
pub use daemon::{Config, Daemon, plugins_directory};
pub use debian_root::{DebianRoot, build_directory};
pub use guest::{Guest, arrives, with_vif};
pub use helper::{Helper, ISCSIADM, install, rules};
pub use kernel::Kernel;
pub use locker::Locker;
pub use loops::{Loop, LoopPool, attached_below, detach_below};
pub use namespace::Namespace;
pub use scripts::Scripts;
pub use switch::Switch;
pub use terminal::Terminal;
pub use test_host::TestHost;
pub use toolstack::{Device, Disk, Kind, Nodes, Scsi, Toolstack, Vif};
pub use xenbus::Xenbus;
pub use xenstored::Xenstored;
