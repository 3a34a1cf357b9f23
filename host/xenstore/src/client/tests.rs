//! Tests of the client: lost, stalled and broken peers.

mod broken;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use xenplug_store_server::{self as server, Server, Stats};

use super::{Client, Event, Options, Watch};
use crate::{Backoff, Endpoint, Errno, Error, Path, Request};

fn node(path: &str) -> Path {
    path.parse().unwrap()
}

fn quick() -> Options {
    Options {
        reconnect: (Duration::from_millis(1), Duration::from_millis(20)),
        ..Options::default()
    }
}

async fn next(watch: &mut Watch) -> Option<Event> {
    tokio::time::timeout(Duration::from_secs(5), watch.next())
        .await
        .expect("an event comes soon")
}

/// Waits for a resync, past other events.
async fn resync(watch: &mut Watch) {
    while next(watch).await.expect("the watch goes on") != Event::Resync {}
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Socket on which a server can start again.
struct TestSocket(tempfile::TempDir);

impl TestSocket {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("socket")
    }

    fn serve(&self) -> Server {
        Server::bind(self.socket(), server::Options::default()).unwrap()
    }

    async fn connect(&self) -> Client {
        Client::connect_with(Endpoint::Socket(self.socket()), quick())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn absent_store_is_an_error_with_the_endpoint() {
    for endpoint in [
        Endpoint::Socket("/nowhere/socket".into()),
        Endpoint::Device("/nowhere/xenbus".into()),
    ] {
        let error = Client::connect(endpoint.clone()).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }));
        assert!(error.to_string().contains(&endpoint.to_string()), "{error}");
    }
}

#[tokio::test]
async fn restarted_server_gets_all_watches_again() {
    let socket = TestSocket::new();
    let first = socket.serve();
    let client = socket.connect().await;
    let mut watches = Vec::new();
    for number in 0..100 {
        let mut watch = client.watch(&node(&format!("/a/{number}"))).await.unwrap();
        assert_eq!(next(&mut watch).await, Some(Event::Changed(watch.path().clone())));
        watches.push(watch);
    }
    drop(first);
    eventually("the loss is noticed", || !client.is_connected()).await;
    assert!(matches!(client.read(&node("/a")).await, Err(Error::Disconnected)));
    let second = socket.serve();
    for watch in &mut watches {
        resync(watch).await;
        while watch.try_next().is_some() {}
    }
    client.write(&node("/a/7"), "x").await.unwrap();
    assert_eq!(next(&mut watches[7]).await, Some(Event::Changed(node("/a/7"))));
    assert_eq!(second.stats().watches, 100);
    watches.truncate(3);
    eventually("dropped watches are removed", || second.stats().watches == 3).await;
}

#[tokio::test]
async fn stalled_server_is_left_after_the_deadline_and_found_again() {
    let socket = TestSocket::new();
    let server = socket.serve();
    let options = Options {
        deadline: Duration::from_secs(1),
        ..quick()
    };
    let client = Client::connect_with(Endpoint::Socket(socket.socket()), options)
        .await
        .unwrap();
    let mut watch = client.watch(&node("/a")).await.unwrap();
    next(&mut watch).await;
    server.stall(true);
    let start = Instant::now();
    let error = client.read(&node("/a")).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.stall(false);
    let start = Instant::now();
    resync(&mut watch).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    client.write(&node("/a"), "x").await.unwrap();
    eventually("connections that were given up are closed", || {
        server.stats().connections == 1
    })
    .await;
}

#[tokio::test]
async fn endless_conflicts_end_in_an_error_within_bounds() {
    let socket = TestSocket::new();
    let server = socket.serve();
    let client = socket.connect().await;
    server.conflict(1000);
    let retry = Backoff::default();
    let start = Instant::now();
    let mut rounds = 0;
    let result: Result<(), Error> = client
        .transaction(&retry, async |transaction| {
            rounds += 1;
            transaction.write(&node("/a"), "x").await
        })
        .await;
    assert!(matches!(result, Err(Error::Conflict(30))), "{result:?}");
    assert_eq!(rounds, 30);
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(matches!(
        client.snapshot(&node("/tool")).await,
        Err(Error::Conflict(30))
    ));
    eventually("no transaction is left", || server.stats().transactions == 0).await;
    server.conflict(20);
    client.snapshot(&node("/tool")).await.unwrap();
}

#[tokio::test]
async fn dropped_futures_leave_no_watch_or_transaction() {
    let socket = TestSocket::new();
    let server = socket.serve();
    let client = socket.connect().await;
    let path = node("/a");
    for round in 0..300_u64 {
        let deadline = Duration::from_micros(round % 60 * 3);
        let work = async {
            let transaction = client.begin().await.unwrap();
            transaction.write(&path, "x").await.unwrap();
            let _watch = client.watch(&path).await.unwrap();
            transaction.commit().await.unwrap();
        };
        let _ = tokio::time::timeout(deadline, work).await;
    }
    eventually("nothing is left", || {
        let stats = server.stats();
        stats.transactions == 0 && stats.watches == 0
    })
    .await;
    let all = futures(8, || client.begin()).await;
    assert_eq!(server.stats().transactions, 8, "every permit has come back");
    drop(all);
}

/// Drops `count` futures after fewer and fewer polls, and returns the results of those that finish.
async fn futures<F: Future<Output = Result<T, Error>>, T>(count: usize, mut f: impl FnMut() -> F) -> Vec<T> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(f().await.unwrap());
    }
    all
}

#[tokio::test]
async fn transaction_ends_with_its_connection() {
    let socket = TestSocket::new();
    let server = socket.serve();
    let client = socket.connect().await;
    let mut watch = client.watch(&node("/a")).await.unwrap();
    let transaction = client.begin().await.unwrap();
    server.disconnect();
    resync(&mut watch).await;
    // The new connection gives the same number to another transaction.
    let other = client.begin().await.unwrap();
    assert!(matches!(
        transaction.write(&node("/a"), "x").await,
        Err(Error::Disconnected)
    ));
    assert!(matches!(transaction.commit().await, Err(Error::Disconnected)));
    other.commit().await.unwrap();
    assert!(client.read(&node("/a")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn dropped_client_closes_its_connection() {
    let socket = TestSocket::new();
    let server = socket.serve();
    let client = socket.connect().await;
    let watch = client.watch(&node("/a")).await.unwrap();
    let transaction = client.begin().await.unwrap();
    drop(client);
    assert_eq!(
        server.stats(),
        Stats {
            nodes: 3,
            connections: 1,
            watches: 1,
            transactions: 1
        }
    );
    drop((watch, transaction));
    eventually("all is closed", || {
        server.stats()
            == Stats {
                nodes: 3,
                ..Stats::default()
            }
    })
    .await;
}

#[tokio::test]
async fn errors_name_the_request() {
    let socket = TestSocket::new();
    let _server = socket.serve();
    let client = socket.connect().await;
    let error = client.read(&node("/missing")).await.unwrap_err();
    assert_eq!(error.to_string(), "READ /missing: ENOENT");
    assert_eq!(error.errno(), Some(Errno::NoEnt));
    assert!(error.is_not_found() && !error.is_denied() && !error.is_disconnected());
}
