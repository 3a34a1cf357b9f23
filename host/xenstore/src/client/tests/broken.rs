//! Peers that say what the test wants them to.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::*;
use crate::wire::{Kind, append_frame, first_frame};

/// A peer that says what the test wants it to.
struct Fake {
    place: TestSocket,
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
        let place = TestSocket::new();
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
        let asked = timeout(Duration::from_secs(30), self.next());
        asked.await.expect("the client asks nothing more")
    }

    async fn next(&mut self) -> Asked {
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
async fn what_fails_within_a_transaction_that_the_store_does_not_know_is_done_again() {
    let fake = Fake::new();
    let (client, mut peer) = fake.connect().await;
    let path = node("/a");
    for suspended in [true, false] {
        let retry = Backoff::default();
        let doing = client.transaction(&retry, async |transaction| transaction.read(&path).await);
        let answering = async {
            let asked = peer.asked().await;
            peer.answer(&asked, b"1\0").await;
            let asked = peer.asked().await;
            assert_eq!((asked.kind, &*asked.payload), (Kind::Read, &b"/a\0"[..]));
            peer.say(Kind::Error as u32, asked.request, b"ENOENT\0").await;
            let asked = peer.asked().await;
            assert_eq!((asked.kind, &*asked.payload), (Kind::Read, &b"/\0"[..]));
            if !suspended {
                return peer.answer(&asked, b"").await;
            }
            peer.say(Kind::Error as u32, asked.request, b"ENOENT\0").await;
            let asked = peer.asked().await;
            assert_eq!((asked.kind, &*asked.payload), (Kind::TransactionEnd, &b"F\0"[..]));
            peer.answer(&asked, b"OK\0").await;
            let asked = peer.asked().await;
            peer.answer(&asked, b"2\0").await;
            let asked = peer.asked().await;
            peer.answer(&asked, b"value").await;
            let asked = peer.asked().await;
            assert_eq!((asked.kind, &*asked.payload), (Kind::TransactionEnd, &b"T\0"[..]));
            peer.answer(&asked, b"OK\0").await;
        };
        match tokio::join!(doing, answering).0 {
            Ok(value) => assert!(suspended && value == b"value"),
            Err(error) => assert!(!suspended && error.is_not_found(), "{error}"),
        }
    }
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
