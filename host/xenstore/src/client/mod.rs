//! The asynchronous client.
//!
//! Modules import downwards only: handle, snapshot, transaction, directory and watch, session, connection, state, then
//! call, inbox and transport.

mod call;
mod connection;
mod directory;
mod handle;
mod inbox;
mod nodes;
mod options;
mod session;
mod snapshot;
mod state;
mod transaction;
mod transport;
mod watch;
#[cfg(feature = "xenstore-rs-traits")]
mod xenstore_rs_traits;

pub use handle::Client;
pub use inbox::Event;
pub use options::Options;
pub use transaction::Transaction;
pub use watch::Watch;

#[cfg(test)]
mod tests;
