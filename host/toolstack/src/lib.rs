//! For toolstacks: devices of driver domains, attached and detached by the `/hotplug` protocol.
//!
//! [`Spec`] parses xl's syntax (xl-disk-configuration(5), xl-network-configuration(5)) and derives the nodes that libxl would
//! write for it. [`Toolstack`] has the calls: [`prepare`](Toolstack::prepare) a driver domain,
//! [`attach`](Toolstack::attach) a device, [`detach`](Toolstack::detach) it. They run the protocol's pure functions
//! (`xenplug_hotplug::toolstack`) on a store and have no other state.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod call;
mod domain;
mod error;
pub mod spec;
mod store;
#[cfg(test)]
mod tests;

pub use call::{Toolstack, request_path};
pub use error::{Error, Progress};
pub use spec::{Spec, SpecError};
