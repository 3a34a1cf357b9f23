//! Foreign clients on the in-memory server, and the traits of xenstore-rs on the client.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod tools;
mod xenstore_rs_client;

use xenplug_store_server::{Options, Server};
use xenplug_xenstore::{Client, Endpoint};

/// Server in a directory of its own.
struct Store {
    server: Server,
    directory: tempfile::TempDir,
}

impl Store {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::bind(directory.path().join("socket"), Options::default()).unwrap();
        Self { server, directory }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("socket")
    }

    async fn connect(&self) -> Client {
        Client::connect(Endpoint::Socket(self.socket())).await.unwrap()
    }
}
