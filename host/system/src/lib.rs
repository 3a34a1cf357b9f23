//! Effects on the host that devices need: loop and block devices, links, nftables rules, helper processes.
//!
//! One trait for each kind of thing ([`Block`], [`Network`], [`Firewall`], [`Process`]), each with the Linux
//! implementation ([`Platform::linux`]) and a simulated one ([`Platform::simulated`]). Every call takes a grant, which
//! only the operator's configuration can make, and plain data; it returns plain data. Descriptors and netlink sockets
//! stay in this crate, and so does all `unsafe` of the project.
//!
//! The calls block. The daemon makes them from worker threads, never from an asynchronous task.

mod address;
pub mod block;
mod command;
pub mod error;
pub mod firewall;
pub mod grant;
mod limits;
mod linux;
pub mod lock;
pub mod network;
mod platform;
pub mod process;
pub mod simulated;
mod sync;

pub use block::Block;
pub use error::Error;
pub use firewall::Firewall;
pub use limits::{confine_compiler, raise_descriptors};
pub use lock::Locks;
pub use network::Network;
pub use platform::Platform;
pub use process::Process;
