//! The xenstore protocol: an asynchronous client, a [`blocking`] one, and an in-memory server.
//!
//! [`Client`] speaks to xenstored through its socket or through `/dev/xen/xenbus` ([`Endpoint`]). Requests are pipelined:
//! many callers and many requests of one caller ([`Client::batch`], [`Transaction::batch`]) share the connection, each
//! batch costs one write and wakes its caller once. The connection is made again when it is lost, with all watches.
//! Client and server are there with the feature `async`, a default; what starts for one transaction does without.
//!
//! The protocol is that of Xen's `docs/misc/xenstore.txt` and `xen/include/public/io/xs_wire.h`; where these are silent,
//! `tools/xenstored` decides.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may fail where it stands"))]
#![cfg_attr(
    not(feature = "async"),
    allow(dead_code, reason = "the blocking client asks less than the protocol has")
)]

mod backoff;
pub mod blocking;
#[cfg(feature = "async")]
mod client;
mod endpoint;
mod error;
#[cfg(feature = "async")]
pub mod memory;
mod path;
mod permission;
mod request;
#[cfg(feature = "async")]
pub mod server;
#[cfg(all(feature = "async", any(test, feature = "suite")))]
pub mod suite;
mod wire;

pub use backoff::{Attempts, Backoff};
#[cfg(feature = "async")]
pub use client::{Client, Event, Options, Transaction, Watch};
pub use endpoint::Endpoint;
pub use error::{Errno, Error};
pub use path::{Path, PathError};
pub use permission::{Access, Permission};
pub use request::{Reply, Request};
