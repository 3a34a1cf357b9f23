//! In-memory xenstore server for tests and the demo, and the [`suite`] that every xenstore has to pass.
//!
//! The server behaves as Xen's C xenstored (tools/xenstored), with permissions, transactions, quotas and watches, and
//! serves every client of that one through its socket. It has no hypervisor: a domain exists from the moment it is
//! mentioned until it is released. Clients of a socket are domain 0; [`Server::listen_as`] makes sockets for other,
//! unprivileged domains, and [`Server::transport`] connects a client in the same process, with delays and losses that a
//! [`TransportPolicy`] decides.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may fail where it stands"))]

mod domains;
mod options;
mod outbox;
mod server;
mod session;
mod store;
pub mod suite;
mod transaction;
mod transport;
mod tree;
mod view;

pub use options::{Options, Quotas};
pub use server::Server;
pub use store::Stats;
pub use transport::{Fate, Message, Transport, TransportPolicy};
