//! Tests of the client with malformed, late and unexpected messages.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::*;
use crate::Reply;
use crate::wire::{Kind, append_frame, first_frame};

/// Peer that sends the messages of the test.
struct TestStore {
    socket: TestSocket,
    listener: UnixListener,
}

struct Peer(UnixStream, Vec<u8>);

struct ReceivedRequest {
    kind: Kind,
    number: u32,
    payload: Vec<u8>,
}

impl TestStore {
    fn new() -> Self {
        let socket = TestSocket::new();
        let listener = UnixListener::bind(socket.socket()).unwrap();
        Self { socket, listener }
    }

    async fn connect(&self) -> (Client, Peer) {
        (self.socket.connect().await, self.accept().await)
    }

    async fn accept(&self) -> Peer {
        Peer(self.listener.accept().await.unwrap().0, Vec::new())
    }
}

impl Peer {
    async fn request(&mut self) -> ReceivedRequest {
        let request = timeout(Duration::from_secs(30), self.next());
        request.await.expect("the client sends nothing more")
    }

    async fn next(&mut self) -> ReceivedRequest {
        loop {
            if let Some((frame, length)) = first_frame(&self.1).unwrap() {
                let kind = Kind::of(frame.kind).unwrap();
                let request = ReceivedRequest {
                    kind,
                    number: frame.request,
                    payload: frame.payload.to_vec(),
                };
                self.1.drain(..length);
                return request;
            }
            assert_ne!(self.0.read_buf(&mut self.1).await.unwrap(), 0, "the client has closed");
        }
    }

    async fn send(&mut self, kind: u32, request: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, kind, request, 0, |to| to.extend_from_slice(payload));
        self.0.write_all(&bytes).await.unwrap();
    }

    async fn reply(&mut self, request: &ReceivedRequest, payload: &[u8]) {
        self.send(request.kind as u32, request.number, payload).await;
    }
}

#[tokio::test]
async fn open_requests_fail_when_the_connection_is_lost() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let paths = [node("/a"), node("/b")];
    let asking = async { tokio::join!(client.read(&paths[0]), client.write(&paths[1], "x"), client.begin()) };
    let losing = async {
        for _ in 0..3 {
            peer.request().await;
        }
        drop(peer);
    };
    let ((read, write, begin), ()) = tokio::join!(asking, losing);
    assert!(read.unwrap_err().is_disconnected());
    assert!(write.unwrap_err().is_disconnected());
    assert!(begin.unwrap_err().is_disconnected());
}

#[tokio::test]
async fn failure_in_a_forgotten_transaction_is_retried() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let path = node("/a");
    for suspended in [true, false] {
        let retry = Backoff::default();
        let doing = client.transaction(&retry, async |transaction| transaction.read(&path).await);
        let answering = async {
            let request = peer.request().await;
            peer.reply(&request, b"1\0").await;
            let request = peer.request().await;
            assert_eq!((request.kind, &*request.payload), (Kind::Read, &b"/a\0"[..]));
            peer.send(Kind::Error as u32, request.number, b"ENOENT\0").await;
            let request = peer.request().await;
            assert_eq!((request.kind, &*request.payload), (Kind::Read, &b"/\0"[..]));
            if !suspended {
                return peer.reply(&request, b"").await;
            }
            peer.send(Kind::Error as u32, request.number, b"ENOENT\0").await;
            let request = peer.request().await;
            assert_eq!((request.kind, &*request.payload), (Kind::TransactionEnd, &b"F\0"[..]));
            peer.reply(&request, b"OK\0").await;
            let request = peer.request().await;
            peer.reply(&request, b"2\0").await;
            let request = peer.request().await;
            peer.reply(&request, b"value").await;
            let request = peer.request().await;
            assert_eq!((request.kind, &*request.payload), (Kind::TransactionEnd, &b"T\0"[..]));
            peer.reply(&request, b"OK\0").await;
        };
        match tokio::join!(doing, answering).0 {
            Ok(value) => assert!(suspended && value == b"value"),
            Err(error) => assert!(!suspended && error.is_not_found(), "{error}"),
        }
    }
}

#[tokio::test]
async fn event_before_the_reply_to_its_watch_is_delivered() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let path = node("/a");
    let serving = async {
        let request = peer.request().await;
        // Only the type identifies an event: its numbers are arbitrary.
        peer.send(Kind::WatchEvent as u32, request.number, &request.payload)
            .await;
        peer.reply(&request, b"OK\0").await;
        request
    };
    let (watch, request) = tokio::join!(client.watch(&path), serving);
    let mut watch = watch.unwrap();
    assert_eq!(watch.try_next(), Some(Event::Changed(path)));
    for malformed in [
        &b""[..],
        b"\0",
        b"/a\0unknown\0",
        b"/a\0x999\0",
        b"no nul",
        b"/a\0\0\0\0",
    ] {
        peer.send(Kind::WatchEvent as u32, 0, malformed).await;
    }
    peer.send(Kind::WatchEvent as u32, 0, &request.payload).await;
    assert_eq!(next(&mut watch).await, Some(Event::Changed(node("/a"))));
}

#[tokio::test]
async fn replies_in_any_order_match_by_number() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let paths: Vec<_> = (0..10).map(|number| node(&format!("/{number}"))).collect();
    let serving = async {
        let mut request = Vec::new();
        for _ in 0..10 {
            request.push(peer.request().await);
        }
        for request in request.iter().rev() {
            let path = request.payload.clone();
            peer.reply(request, &path).await;
        }
    };
    let requests = paths.iter().cloned().map(Request::Read).collect();
    let (replies, ()) = tokio::join!(client.batch(requests), serving);
    for (reply, path) in replies.unwrap().into_iter().zip(paths) {
        assert_eq!(reply.unwrap(), Reply::Value(format!("{path}\0").into_bytes()));
    }
}

#[tokio::test]
async fn late_and_unexpected_replies_are_ignored() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let path = node("/a");
    let _ = tokio::time::timeout(Duration::from_millis(20), client.read(&path)).await;
    let late = peer.request().await;
    let serving = async {
        let request = peer.request().await;
        assert_ne!(request.number, late.number);
        peer.reply(&late, b"late").await;
        peer.reply(&late, b"twice").await;
        for number in [0, 1, request.number + 16, u32::MAX] {
            peer.send(Kind::Read as u32, number, b"unasked").await;
            peer.send(99, number, b"of an unknown type").await;
        }
        peer.reply(&request, b"right").await;
    };
    let (read, ()) = tokio::join!(client.read(&path), serving);
    assert_eq!(read.unwrap(), b"right");
}

#[tokio::test]
async fn window_holds_at_most_sixteen_requests() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let requests = (0..40)
        .map(|number| Request::Read(node(&format!("/{number}"))))
        .collect();
    let serving = async {
        let mut request = std::collections::VecDeque::new();
        for _ in 0..16 {
            request.push_back(peer.request().await);
        }
        let more = tokio::time::timeout(Duration::from_millis(50), peer.request()).await;
        assert!(more.is_err(), "a seventeenth");
        for sent in 16..56 {
            let answered = request.pop_front().unwrap();
            peer.reply(&answered, b"x").await;
            if sent < 40 {
                request.push_back(peer.request().await);
            }
        }
    };
    let (replies, ()) = tokio::join!(client.batch(requests), serving);
    assert_eq!(replies.unwrap().len(), 40);
}

#[tokio::test]
async fn payload_above_4096_bytes_ends_the_connection() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let path = node("/a");
    let serving = async {
        let request = peer.request().await;
        peer.reply(&request, &[7; 4096]).await;
    };
    let (read, ()) = tokio::join!(client.read(&path), serving);
    assert_eq!(read.unwrap(), [7; 4096]);
    for len in [4097, u32::MAX] {
        let serving = async {
            let request = peer.request().await;
            let header = [request.kind as u32, request.number, 0, len]
                .map(u32::to_ne_bytes)
                .concat();
            peer.0.write_all(&header).await.unwrap();
            store.accept().await
        };
        let (read, again) = tokio::join!(client.read(&path), serving);
        assert!(matches!(read, Err(Error::Disconnected)));
        peer = again;
        eventually("connected again", || client.is_connected()).await;
    }
}

#[tokio::test]
async fn reply_of_the_wrong_type_ends_the_connection() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let path = node("/a");
    for kind in [Kind::Directory as u32, 99, u32::MAX] {
        let serving = async {
            let request = peer.request().await;
            peer.send(kind, request.number, b"x\0").await;
            store.accept().await
        };
        let (read, again) = tokio::join!(client.read(&path), serving);
        assert!(matches!(read, Err(Error::Disconnected)), "{kind}");
        peer = again;
        eventually("connected again", || client.is_connected()).await;
    }
}

#[tokio::test]
async fn malformed_payload_fails_only_its_request() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
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
            let request = peer.request().await;
            peer.reply(&request, reply).await;
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
async fn watch_that_cannot_be_set_again_ends() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let path = node("@releaseDomain");
    let serving = async {
        let request = peer.request().await;
        peer.reply(&request, b"OK\0").await;
    };
    let (watch, ()) = tokio::join!(client.watch(&path), serving);
    let mut watch = watch.unwrap();
    drop(peer);
    let mut peer = store.accept().await;
    let request = peer.request().await;
    assert_eq!(request.kind, Kind::Watch);
    peer.send(Kind::Error as u32, request.number, b"EACCES\0").await;
    assert_eq!(next(&mut watch).await, None);
    assert_eq!(next(&mut watch).await, None);
}

#[tokio::test]
async fn endless_directory_is_an_error() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let path = node("/a");
    let serving = async {
        let request = peer.request().await;
        peer.send(Kind::Error as u32, request.number, b"E2BIG\0").await;
        for part in [&b"1\0a\0"[..], b"1\0b\0", b"1\0"] {
            let request = peer.request().await;
            peer.reply(&request, part).await;
        }
    };
    let (list, ()) = tokio::join!(client.directory(&path), serving);
    assert!(matches!(list, Err(Error::Protocol(_))), "{list:?}");
}

#[tokio::test]
async fn directory_that_changes_between_parts_is_listed_again() {
    let store = TestStore::new();
    let (client, mut peer) = store.connect().await;
    let path = node("/a");
    let serving = async {
        let request = peer.request().await;
        peer.send(Kind::Error as u32, request.number, b"E2BIG\0").await;
        for (offset, part) in [
            ("0", &b"1\0a\0b\0"[..]),
            ("4", b"2\0d\0\0"),
            ("0", b"2\0a\0c\0"),
            ("4", b"2\0d\0\0"),
        ] {
            let request = peer.request().await;
            assert_eq!(request.payload, format!("/a\0{offset}\0").as_bytes());
            peer.reply(&request, part).await;
        }
    };
    let (list, ()) = tokio::join!(client.directory(&path), serving);
    assert_eq!(list.unwrap(), ["a", "c", "d"]);
}
