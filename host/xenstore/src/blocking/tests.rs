//! Tests of the blocking client, on the in-memory server and on broken peers.

use std::{os::unix::net::UnixListener, path::PathBuf};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use xenplug_store_server::{self as server, Server};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn node(path: &str) -> Path {
    path.parse().unwrap()
}

/// Server, with its runtime and directory.
struct Store {
    _server: Server,
    socket: PathBuf,
    _directory: TempDir,
    _runtime: Runtime,
}

impl Store {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let socket = directory.path().join("socket");
        let server = runtime.block_on(async { Server::bind(&socket, server::Options::default()).unwrap() });
        Self {
            _server: server,
            socket,
            _directory: directory,
            _runtime: runtime,
        }
    }

    fn connect(&self) -> Client {
        Client::connect(&Endpoint::Socket(self.socket.clone()), DEADLINE).unwrap()
    }

    /// Reads a node on a connection of its own.
    fn value(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.connect()
            .transaction(&Backoff::default(), |transaction| transaction.read(&node(path)))
    }

    fn write(&self, path: &str, value: &str) {
        self.connect()
            .transaction(&Backoff::default(), |transaction| transaction.write(&node(path), value))
            .unwrap();
    }
}

#[test]
fn transaction_takes_effect_unless_it_fails() {
    let store = Store::new();
    store.write("/a", "1");
    assert_eq!(store.value("/a").unwrap(), b"1");
    let failed = store.connect().transaction(&Backoff::default(), |transaction| {
        transaction.write(&node("/a"), "2")?;
        transaction.read(&node("/absent")).map(drop)
    });
    assert!(failed.unwrap_err().is_not_found());
    assert_eq!(store.value("/a").unwrap(), b"1");
}

#[test]
fn conflicting_transaction_is_retried_within_bounds() {
    let store = Store::new();
    store.write("/a", "0");
    let mut rounds = 0;
    let mut count = |others: u32, attempts: u32| {
        rounds = 0;
        let retry = Backoff {
            attempts,
            ..Backoff::default()
        };
        let done = store.connect().transaction(&retry, |transaction| {
            let value = transaction.read(&node("/a"))?;
            rounds += 1;
            if rounds <= others {
                store.write("/a", &format!("another's {rounds}"));
            }
            transaction.write(&node("/a"), [&value[..], b" and mine"].concat())
        });
        (done, rounds)
    };
    assert!(matches!(count(3, 10), (Ok(()), 4)));
    assert_eq!(store.value("/a").unwrap(), b"another's 3 and mine");
    assert!(matches!(count(u32::MAX, 3), (Err(Error::Conflict(3)), 3)));
}

#[test]
fn absent_silent_closed_or_malformed_peer_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let deadline = Duration::from_millis(50);
    let endpoint = Endpoint::Socket(socket.clone());
    assert!(matches!(
        Client::connect(&endpoint, deadline),
        Err(Error::Unreachable { .. })
    ));

    let listener = UnixListener::bind(&socket).unwrap();
    // `None` sends nothing and stays connected; the others send these bytes, and close.
    let another = [16_u32, 7, 0, 0].map(u32::to_ne_bytes).concat();
    let oversized = [6_u32, 1, 0, u32::MAX].map(u32::to_ne_bytes).concat();
    for sent in [None, Some(Vec::new()), Some(another), Some(oversized)] {
        let mut client = Client::connect(&endpoint, deadline).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        if let Some(sent) = &sent {
            peer.write_all(sent).unwrap();
            peer.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let error = client
            .transaction(&Backoff::default(), |_| Ok::<_, Error>(()))
            .unwrap_err();
        match &sent {
            None => assert!(matches!(error, Error::Timeout(_)), "{error}"),
            Some(sent) if sent.is_empty() => assert!(matches!(error, Error::Disconnected), "{error}"),
            Some(_) => assert!(matches!(error, Error::Protocol(_)), "{error}"),
        }
    }
}

#[test]
fn oversized_value_is_refused_before_it_is_sent() {
    let store = Store::new();
    let error = store
        .connect()
        .transaction(&Backoff::default(), |transaction| {
            transaction.write(&node("/a"), [b'x'; 5000])
        })
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}
