//! The xenstore protocol: an asynchronous client and a [`blocking`] one.
//!
//! [`Client`] speaks to xenstored through its socket or through `/dev/xen/xenbus` ([`Endpoint`]). Requests are pipelined:
//! all callers and all requests of one caller ([`Client::batch`], [`Transaction::batch`]) share the connection, each
//! batch costs one write and wakes its caller once. A lost connection is made again, with all watches.
//! The asynchronous client needs the default feature `async`; a program that runs for one transaction does without.
//!
//! The protocol is that of Xen's `docs/misc/xenstore.txt` and `xen/include/public/io/xs_wire.h`; where these are silent,
//! `tools/xenstored` decides.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may fail where it stands"))]
#![cfg_attr(
    not(feature = "async"),
    allow(dead_code, reason = "the blocking client uses a part of the protocol")
)]

mod backoff;
pub mod blocking;
#[cfg(feature = "async")]
mod client;
mod endpoint;
mod error;
#[cfg(feature = "server")]
mod in_process;
mod path;
mod permission;
mod request;
#[cfg_attr(
    not(feature = "server"),
    allow(unreachable_pub, reason = "public in `protocol`, for servers")
)]
mod wire;

pub use backoff::{Attempts, Backoff};
#[cfg(feature = "async")]
pub use client::{Client, Event, Options, Transaction, Watch};
pub use endpoint::Endpoint;
pub use error::{Errno, Error};
#[cfg(feature = "server")]
pub use in_process::InProcess;
pub use path::{Path, PathError};
pub use permission::{Access, Permission};
pub use request::{Reply, Request};

/// The wire format, for servers of the protocol.
#[cfg(feature = "server")]
pub mod protocol {
    pub use crate::wire::{
        Frame, HEADER, Kind, Oversized, PAYLOAD_MAX, STREAM_CAPACITY, append_frame, decimal, first_frame, first_string,
        only_string, strings,
    };
}
