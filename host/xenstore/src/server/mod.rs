//! The same protocol, served from memory: the embedded store for demonstrations, plugin authors and tests.
//!
//! It behaves as Xen's C xenstored does (tools/xenstored), with its permissions, transactions, quotas and watches, and
//! speaks to everything that speaks to that one through its socket. There is no hypervisor: a domain exists as soon as it
//! is mentioned, and until it is released. Clients of a socket are domain 0; [`Server::listen_as`] makes sockets whose
//! clients are other, unprivileged domains.

mod core;
mod domains;
mod outbox;
mod session;
mod transaction;
mod tree;
mod view;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{net::UnixListener, sync::watch, task::JoinHandle};

pub use domains::Quotas;

use self::core::Core;
use crate::memory::{MemoryStore, Road};

/// How a server behaves.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// What an unprivileged domain may have.
    pub quotas: Quotas,
    /// Whether nobody may watch for domains that come and go.
    pub secretive: bool,
}

/// How much there is in a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes of the store, the root included.
    pub nodes: usize,
    /// Clients.
    pub connections: usize,
    /// Watches of all clients.
    pub watches: usize,
    /// Transactions under way.
    pub transactions: usize,
}

/// A running server. Dropping it closes every connection and removes its sockets; the store is gone with it.
#[derive(Debug)]
pub struct Server {
    core: Arc<Mutex<Core>>,
    stalled: Arc<watch::Sender<bool>>,
    listeners: Vec<(PathBuf, JoinHandle<()>)>,
}

impl Server {
    /// Serves on a new socket, within a tokio runtime with I/O and time. Its clients are domain 0.
    pub fn bind(path: impl AsRef<Path>, options: Options) -> io::Result<Self> {
        let mut server = Self::new(options);
        server.listen_as(path, 0)?;
        Ok(server)
    }

    /// A server without a socket: see [`Server::place`].
    pub fn new(options: Options) -> Self {
        Self {
            core: Arc::new(Mutex::new(Core::new(options))),
            stalled: Arc::new(watch::Sender::new(false)),
            listeners: Vec::new(),
        }
    }

    /// A way for clients in this process that are that domain: with a road, which decides how messages fare on it, or
    /// with one on which they arrive at once.
    pub fn place(&self, domid: u16, road: Option<Arc<dyn Road>>) -> MemoryStore {
        let (core, stalled) = (self.core.clone(), self.stalled.subscribe());
        MemoryStore::new(
            move |stream| session::start(&core, stream, domid, stalled.clone()),
            road,
        )
    }

    /// Serves on one more new socket, whose clients are a domain: unprivileged unless it is domain 0.
    pub fn listen_as(&mut self, path: impl AsRef<Path>, domid: u16) -> io::Result<()> {
        let path = path.as_ref().to_owned();
        let listener = UnixListener::bind(&path)?;
        let (core, stalled) = (self.core.clone(), self.stalled.subscribe());
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => session::start(&core, stream, domid, stalled.clone()),
                    Err(error) => {
                        tracing::warn!(%error, "a client could not connect");
                        // Out of descriptors, most likely: others have to close theirs first.
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                }
            }
        });
        self.listeners.push((path, task));
        Ok(())
    }

    /// How much there is in it.
    pub fn stats(&self) -> Stats {
        self.core().stats()
    }

    /// Lets the next commits of that number fail with `EAGAIN`, as if others had changed the same nodes.
    pub fn conflict(&self, commits: u32) {
        self.core().conflicts = commits;
    }

    /// Stops answering, or goes on.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Closes every connection, and keeps the store.
    pub fn disconnect(&self) {
        self.core().disconnect();
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for (path, task) in &self.listeners {
            task.abort();
            let _ = fs::remove_file(path);
        }
        self.disconnect();
    }
}

#[cfg(test)]
mod tests;
