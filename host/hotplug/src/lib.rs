//! The `/hotplug` protocol (`docs/hotplug-protocol.md`): both sides as pure functions, and the nodes' names.
//!
//! A side looks at the store, asks its function what is next, and does that in one transaction that looks again and goes
//! on only if the function still says so. Neither side remembers anything that the store, or the driver domain's journal,
//! does not: so a side that dies at any point goes on from there when it is back. Nothing in here does I/O or reads a
//! clock. `model` explores every order of what can happen to the two, to a kernel and to a guest.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on ends"))]

pub mod daemon;
#[cfg(test)]
mod model;
pub mod path;
pub mod request;
#[cfg(test)]
mod tests;
pub mod toolstack;

pub use path::{Class, RequestPath, driver_domain};
pub use request::{Request, RequestId, State};
