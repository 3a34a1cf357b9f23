//! The running server: its sockets, and its transports for clients in the same process.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{net::UnixListener, sync::watch, task::JoinHandle};

use crate::{
    options::Options,
    session,
    store::{Stats, Store},
    transport::{Transport, TransportPolicy},
};

/// A running server. Dropping it closes every connection and removes its sockets; the store goes with it.
#[derive(Debug)]
pub struct Server {
    store: Arc<Mutex<Store>>,
    stalled: Arc<watch::Sender<bool>>,
    listeners: Vec<(PathBuf, JoinHandle<()>)>,
}

impl Server {
    /// Starts a server on a new socket, within a tokio runtime with I/O and time. Its clients are domain 0.
    pub fn bind(path: impl AsRef<Path>, options: Options) -> io::Result<Self> {
        let mut server = Self::new(options);
        server.listen_as(path, 0)?;
        Ok(server)
    }

    /// Creates a server without a socket: see [`Server::transport`].
    pub fn new(options: Options) -> Self {
        Self {
            store: Arc::new(Mutex::new(Store::new(options))),
            stalled: Arc::new(watch::Sender::new(false)),
            listeners: Vec::new(),
        }
    }

    /// Returns a transport for clients in this process that act as `domid`. Without a policy every message arrives at
    /// once.
    pub fn transport(&self, domid: u16, policy: Option<Arc<dyn TransportPolicy>>) -> Transport {
        let (store, stalled) = (self.store.clone(), self.stalled.subscribe());
        Transport::new(
            move |stream| session::start(&store, stream, domid, stalled.clone()),
            policy,
        )
    }

    /// Serves on one more new socket, whose clients are `domid`: unprivileged unless it is domain 0.
    pub fn listen_as(&mut self, path: impl AsRef<Path>, domid: u16) -> io::Result<()> {
        let path = path.as_ref().to_owned();
        let listener = UnixListener::bind(&path)?;
        let (store, stalled) = (self.store.clone(), self.stalled.subscribe());
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => session::start(&store, stream, domid, stalled.clone()),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a client");
                        // Out of descriptors, most likely: other clients have to close theirs first.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
        self.listeners.push((path, task));
        Ok(())
    }

    /// Counts nodes, connections, watches and transactions.
    pub fn stats(&self) -> Stats {
        self.store().stats()
    }

    /// Fails the next `commits` commits with `EAGAIN`, as if other clients had changed the same nodes.
    pub fn conflict(&self, commits: u32) {
        self.store().conflicts = commits;
    }

    /// Stops or resumes answering requests.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Closes every connection, and keeps the store.
    pub fn disconnect(&self) {
        self.store().disconnect();
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
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
