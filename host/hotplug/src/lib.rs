//! The `/hotplug` protocol (`docs/hotplug-protocol.md`): both sides as pure functions, and the names of its nodes.
//!
//! Each side takes a snapshot of the store, asks its function for the next action, and carries it out in a transaction that
//! takes the snapshot again and commits only if the function still returns the same action. Neither side has state besides
//! the store and the driver domain's journal, so a side that dies resumes when it is back. Nothing in this crate does I/O
//! or reads a clock. `model` explores all orders of events of both sides, a kernel and a guest.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

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
