//! Tests of the client: lost, stalled and broken peers.

use std::{path::PathBuf, time::Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::*;
use crate::{
    Errno,
    server::{self, Server, Stats},
    wire::{Kind, append_frame, first_frame},
};

fn node(path: &str) -> Path {
    path.parse().unwrap()
}

fn quick() -> Options {
    Options {
        deadline: Duration::from_millis(300),
        reconnect: (Duration::from_millis(1), Duration::from_millis(20)),
        ..Options::default()
    }
}

async fn next(watch: &mut Watch) -> Option<Event> {
    tokio::time::timeout(Duration::from_secs(5), watch.next())
        .await
        .expect("an event comes soon")
}

/// Waits for the event that tells of a new connection, past others.
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

/// A server and a place for it to come back to.
struct Place(tempfile::TempDir);

impl Place {
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

/// A peer that says what the test wants it to.
struct Fake {
    place: Place,
    listener: UnixListener,
}

struct Peer(UnixStream, Vec<u8>);

struct Asked {
    kind: Kind,
    request: u32,
    payload: Vec<u8>,
}

impl Fake {
    fn new() -> Self {
        let place = Place::new();
        let listener = UnixListener::bind(place.socket()).unwrap();
        Self { place, listener }
    }

    async fn connect(&self) -> (Client, Peer) {
        (self.place.connect().await, self.accept().await)
    }

    async fn accept(&self) -> Peer {
        Peer(self.listener.accept().await.unwrap().0, Vec::new())
    }
}

impl Peer {
    async fn asked(&mut self) -> Asked {
        loop {
            if let Some((frame, length)) = first_frame(&self.1).unwrap() {
                let kind = Kind::of(frame.kind).unwrap();
                let asked = Asked {
                    kind,
                    request: frame.request,
                    payload: frame.payload.to_vec(),
                };
                self.1.drain(..length);
                return asked;
            }
            assert_ne!(self.0.read_buf(&mut self.1).await.unwrap(), 0, "the client has gone");
        }
    }

    async fn say(&mut self, kind: u32, request: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, kind, request, 0, |to| to.extend_from_slice(payload));
        self.0.write_all(&bytes).await.unwrap();
    }

    async fn answer(&mut self, asked: &Asked, payload: &[u8]) {
        self.say(asked.kind as u32, asked.request, payload).await;
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_is_an_error_that_says_where() {
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
async fn a_restarted_server_is_found_again_with_all_watches() {
    let place = Place::new();
    let first = place.serve();
    let client = place.connect().await;
    let mut watches = Vec::new();
    for number in 0..100 {
        let mut watch = client.watch(&node(&format!("/a/{number}"))).await.unwrap();
        assert_eq!(next(&mut watch).await, Some(Event::Changed(watch.path().clone())));
        watches.push(watch);
    }
    drop(first);
    eventually("the loss is noticed", || !client.is_connected()).await;
    assert!(matches!(client.read(&node("/a")).await, Err(Error::Disconnected)));
    let second = place.serve();
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
async fn requests_under_way_fail_when_the_connection_is_lost() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let paths = [node("/a"), node("/b")];
    let asking = async { tokio::join!(client.read(&paths[0]), client.write(&paths[1], "x"), client.begin()) };
    let losing = async {
        for _ in 0..3 {
            peer.asked().await;
        }
        drop(peer);
    };
    let ((read, write, begin), ()) = tokio::join!(asking, losing);
    assert!(read.unwrap_err().is_disconnected());
    assert!(write.unwrap_err().is_disconnected());
    assert!(begin.unwrap_err().is_disconnected());
}

#[tokio::test]
async fn a_stalled_server_is_given_up_after_the_deadline_and_found_again() {
    let place = Place::new();
    let server = place.serve();
    let client = place.connect().await;
    let mut watch = client.watch(&node("/a")).await.unwrap();
    next(&mut watch).await;
    server.stall(true);
    let start = Instant::now();
    let error = client.read(&node("/a")).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
    tokio::time::sleep(Duration::from_millis(500)).await;
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
async fn a_thousand_conflicts_in_a_row_end_as_an_error_within_bounds() {
    let place = Place::new();
    let server = place.serve();
    let client = place.connect().await;
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
async fn transactions_and_watches_whose_futures_are_dropped_leave_nothing_in_the_store() {
    let place = Place::new();
    let server = place.serve();
    let client = place.connect().await;
    let path = node("/a");
    for round in 0..300_u64 {
        let patience = Duration::from_micros(round % 60 * 3);
        let work = async {
            let transaction = client.begin().await.unwrap();
            transaction.write(&path, "x").await.unwrap();
            let _watch = client.watch(&path).await.unwrap();
            transaction.commit().await.unwrap();
        };
        let _ = tokio::time::timeout(patience, work).await;
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

/// Several futures one after the other.
async fn futures<F: Future<Output = Result<T, Error>>, T>(count: usize, mut f: impl FnMut() -> F) -> Vec<T> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(f().await.unwrap());
    }
    all
}

#[tokio::test]
async fn a_transaction_does_not_outlive_its_connection() {
    let place = Place::new();
    let server = place.serve();
    let client = place.connect().await;
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
async fn an_event_may_come_before_the_reply_to_its_watch() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let path = node("/a");
    let serving = async {
        let asked = peer.asked().await;
        // Type alone tells an event: its numbers may be anything.
        peer.say(Kind::WatchEvent as u32, asked.request, &asked.payload).await;
        peer.answer(&asked, b"OK\0").await;
        asked
    };
    let (watch, asked) = tokio::join!(client.watch(&path), serving);
    let mut watch = watch.unwrap();
    assert_eq!(watch.try_next(), Some(Event::Changed(path)));
    for rubbish in [
        &b""[..],
        b"\0",
        b"/a\0unknown\0",
        b"/a\0x999\0",
        b"no nul",
        b"/a\0\0\0\0",
    ] {
        peer.say(Kind::WatchEvent as u32, 0, rubbish).await;
    }
    peer.say(Kind::WatchEvent as u32, 0, &asked.payload).await;
    assert_eq!(next(&mut watch).await, Some(Event::Changed(node("/a"))));
}

#[tokio::test]
async fn replies_are_matched_by_number_whatever_their_order() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let paths: Vec<_> = (0..10).map(|number| node(&format!("/{number}"))).collect();
    let serving = async {
        let mut asked = Vec::new();
        for _ in 0..10 {
            asked.push(peer.asked().await);
        }
        for asked in asked.iter().rev() {
            let path = asked.payload.clone();
            peer.answer(asked, &path).await;
        }
    };
    let requests = paths.iter().cloned().map(Request::Read).collect();
    let (replies, ()) = tokio::join!(client.batch(requests), serving);
    for (reply, path) in replies.unwrap().into_iter().zip(paths) {
        assert_eq!(reply.unwrap(), Reply::Value(format!("{path}\0").into_bytes()));
    }
}

#[tokio::test]
async fn late_and_unasked_replies_reach_nobody() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let path = node("/a");
    let _ = tokio::time::timeout(Duration::from_millis(20), client.read(&path)).await;
    let late = peer.asked().await;
    let serving = async {
        let asked = peer.asked().await;
        assert_ne!(asked.request, late.request);
        peer.answer(&late, b"late").await;
        peer.answer(&late, b"twice").await;
        for number in [0, 1, asked.request + 16, u32::MAX] {
            peer.say(Kind::Read as u32, number, b"unasked").await;
            peer.say(99, number, b"of an unknown type").await;
        }
        peer.answer(&asked, b"right").await;
    };
    let (read, ()) = tokio::join!(client.read(&path), serving);
    assert_eq!(read.unwrap(), b"right");
}

#[tokio::test]
async fn the_wire_holds_sixteen_requests_at_most() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let requests = (0..40)
        .map(|number| Request::Read(node(&format!("/{number}"))))
        .collect();
    let serving = async {
        let mut asked = std::collections::VecDeque::new();
        for _ in 0..16 {
            asked.push_back(peer.asked().await);
        }
        let more = tokio::time::timeout(Duration::from_millis(50), peer.asked()).await;
        assert!(more.is_err(), "a seventeenth");
        for sent in 16..56 {
            let answered = asked.pop_front().unwrap();
            peer.answer(&answered, b"x").await;
            if sent < 40 {
                asked.push_back(peer.asked().await);
            }
        }
    };
    let (replies, ()) = tokio::join!(client.batch(requests), serving);
    assert_eq!(replies.unwrap().len(), 40);
}

#[tokio::test]
async fn a_payload_of_4096_bytes_is_taken_and_more_ends_the_connection() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let path = node("/a");
    let serving = async {
        let asked = peer.asked().await;
        peer.answer(&asked, &[7; 4096]).await;
    };
    let (read, ()) = tokio::join!(client.read(&path), serving);
    assert_eq!(read.unwrap(), [7; 4096]);
    for len in [4097, u32::MAX] {
        let serving = async {
            let asked = peer.asked().await;
            let header = [asked.kind as u32, asked.request, 0, len]
                .map(u32::to_ne_bytes)
                .concat();
            peer.0.write_all(&header).await.unwrap();
            fake.accept().await
        };
        let (read, again) = tokio::join!(client.read(&path), serving);
        assert!(matches!(read, Err(Error::Disconnected)));
        peer = again;
        eventually("connected again", || client.is_connected()).await;
    }
}

#[tokio::test]
async fn a_reply_of_the_wrong_type_ends_the_connection() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let path = node("/a");
    for kind in [Kind::Directory as u32, 99, u32::MAX] {
        let serving = async {
            let asked = peer.asked().await;
            peer.say(kind, asked.request, b"x\0").await;
            fake.accept().await
        };
        let (read, again) = tokio::join!(client.read(&path), serving);
        assert!(matches!(read, Err(Error::Disconnected)), "{kind}");
        peer = again;
        eventually("connected again", || client.is_connected()).await;
    }
}

#[tokio::test]
async fn malformed_payloads_are_errors_of_their_request_alone() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let requests = vec![
        Request::Permissions(node("/a")),
        Request::IsIntroduced(1),
        Request::Directory(node("/a")),
        Request::TransactionStart,
        Request::DirectoryPart(node("/a"), 0),
        Request::DomainPath(1),
        Request::Read(node("/a")),
    ];
    let replies: [&[u8]; 7] = [
        b"x\0",
        b"maybe\0",
        b"\xff\0",
        b"0\0",
        b"no nul",
        b"two\0strings\0",
        b"fine",
    ];
    let serving = async {
        for reply in replies {
            let asked = peer.asked().await;
            peer.answer(&asked, reply).await;
        }
    };
    let (replies, ()) = tokio::join!(client.batch(requests), serving);
    let replies = replies.unwrap();
    for reply in &replies[..6] {
        assert!(matches!(reply, Err(Error::Protocol(_))), "{reply:?}");
    }
    assert_eq!(replies[6].clone().unwrap(), Reply::Value(b"fine".to_vec()));
}

#[tokio::test]
async fn a_watch_that_cannot_be_set_again_ends() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let path = node("@releaseDomain");
    let serving = async {
        let asked = peer.asked().await;
        peer.answer(&asked, b"OK\0").await;
    };
    let (watch, ()) = tokio::join!(client.watch(&path), serving);
    let mut watch = watch.unwrap();
    drop(peer);
    let mut peer = fake.accept().await;
    let asked = peer.asked().await;
    assert_eq!(asked.kind, Kind::Watch);
    peer.say(Kind::Error as u32, asked.request, b"EACCES\0").await;
    assert_eq!(next(&mut watch).await, None);
    assert_eq!(next(&mut watch).await, None);
}

#[tokio::test]
async fn an_endless_directory_is_an_error() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let path = node("/a");
    let serving = async {
        let asked = peer.asked().await;
        peer.say(Kind::Error as u32, asked.request, b"E2BIG\0").await;
        for part in [&b"1\0a\0"[..], b"1\0b\0", b"1\0"] {
            let asked = peer.asked().await;
            peer.answer(&asked, part).await;
        }
    };
    let (list, ()) = tokio::join!(client.directory(&path), serving);
    assert!(matches!(list, Err(Error::Protocol(_))), "{list:?}");
}

#[tokio::test]
async fn a_directory_that_changes_between_its_parts_is_listed_anew() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let path = node("/a");
    let serving = async {
        let asked = peer.asked().await;
        peer.say(Kind::Error as u32, asked.request, b"E2BIG\0").await;
        for (offset, part) in [
            ("0", &b"1\0a\0b\0"[..]),
            ("4", b"2\0d\0\0"),
            ("0", b"2\0a\0c\0"),
            ("4", b"2\0d\0\0"),
        ] {
            let asked = peer.asked().await;
            assert_eq!(asked.payload, format!("/a\0{offset}\0").as_bytes());
            peer.answer(&asked, part).await;
        }
    };
    let (list, ()) = tokio::join!(client.directory(&path), serving);
    assert_eq!(list.unwrap(), ["a", "c", "d"]);
}

#[tokio::test]
async fn a_client_that_is_dropped_closes_its_connection() {
    let place = Place::new();
    let server = place.serve();
    let client = place.connect().await;
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
async fn errors_say_what_was_asked() {
    let place = Place::new();
    let _server = place.serve();
    let client = place.connect().await;
    let error = client.read(&node("/missing")).await.unwrap_err();
    assert_eq!(error.to_string(), "READ /missing: ENOENT");
    assert_eq!(error.errno(), Some(Errno::NoEnt));
    assert!(error.is_not_found() && !error.is_denied() && !error.is_disconnected());
}
