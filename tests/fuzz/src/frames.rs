//! Messages of the store's protocol, in both directions.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::Builder,
    sync::mpsc,
    time::timeout,
};
use xenplug_store_server::{self as server, Server, Transport};
use xenplug_xenstore::{Client, Options, Path, Reply, Request};

/// Bytes of a header, and of the longest payload (xen/include/public/io/xs_wire.h).
const HEADER: usize = 16;
const PAYLOAD_MAX: usize = 4096;
/// `XS_ERROR` and `XS_WATCH_EVENT`.
const ERROR: u32 = 16;
const EVENT: u32 = 15;
/// The nodes of a new server.
const NODES: usize = 3;

/// The first byte says whether the others are what a client says, or what the store does.
pub(crate) fn check(bytes: &[u8]) {
    let Some((side, said)) = bytes.split_first() else {
        return;
    };
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        match side % 3 {
            0 => to_the_store(said, 0).await,
            1 => to_the_store(said, 7).await,
            _ => to_a_client(said).await,
        }
    });
}

/// Whatever a domain says, the store answers each whole request once, in messages that are whole, and serves others.
async fn to_the_store(said: &[u8], domain: u16) {
    let server = Server::new(server::Options::default());
    let mut stream = server.transport(domain, None).connect().expect("it is open");
    let (asked, broken) = requests(said);
    stream.write_all(said).await.expect("there is room");
    let mut answers = 0;
    let mut heard = Vec::new();
    while timeout(Duration::from_secs(1), stream.read_buf(&mut heard))
        .await
        .is_ok_and(|read| read.is_ok_and(|n| n > 0))
    {}
    let mut rest = &heard[..];
    while !rest.is_empty() {
        let (kind, payload) = frame(rest).expect("the store says whole messages");
        assert!(kind != ERROR || payload.ends_with(b"\0"), "an error that is no text");
        answers += usize::from(kind != EVENT);
        rest = &rest[HEADER + payload.len()..];
    }
    assert!(answers <= asked, "{answers} answers to {asked} requests");
    assert!(broken || answers == asked, "{answers} answers to {asked} requests");
    assert!(
        domain == 0 || server.stats().nodes == NODES,
        "an unprivileged domain has made nodes at the root"
    );
    another_is_served(&server).await;
}

/// A node keeps what was written to it.
async fn another_is_served(server: &Server) {
    let endpoint = server.transport(0, None).endpoint();
    let client = Client::connect(endpoint).await.expect("it is open");
    let path: Path = "/tool/another".parse().expect("a path");
    let value = [0, 255, 47, 0];
    client.write(&path, value).await.expect("domain 0 may");
    assert_eq!(client.read(&path).await.expect("it is there"), value);
}

/// Whatever the store says, every request ends, with what was asked for or an error.
async fn to_a_client(said: &[u8]) {
    let (take, mut taken) = mpsc::unbounded_channel::<DuplexStream>();
    let transport = Transport::new(move |stream| drop(take.send(stream)), None);
    let mut options = Options::default();
    options.seed = Some(0);
    let client = Client::connect_with(transport.endpoint(), options)
        .await
        .expect("it is open");
    let path: Path = "/a/b".parse().expect("a path");
    let said = said.to_vec();
    let store = async {
        let mut connections = Vec::new();
        while let Some(mut stream) = taken.recv().await {
            // On the first connection. The others are mute, until the client gives them up.
            if connections.is_empty() {
                let _ = stream.write_all(&said).await;
            }
            connections.push(stream);
        }
    };
    let asking = async {
        let every = vec![
            Request::Directory(path.clone()),
            Request::Read(path.clone()),
            Request::Permissions(path.clone()),
            Request::Write(path.clone(), b"x".to_vec()),
            Request::Rm(path.clone()),
        ];
        let kinds: [fn(&Reply) -> bool; 5] = [
            |reply| matches!(reply, Reply::Names(_)),
            |reply| matches!(reply, Reply::Value(_)),
            |reply| matches!(reply, Reply::Permissions(_)),
            |reply| *reply == Reply::Done,
            |reply| *reply == Reply::Done,
        ];
        let (replies, watch, transaction) = tokio::join!(client.batch(every), client.watch(&path), client.begin());
        for (reply, fits) in replies.into_iter().flatten().zip(kinds) {
            assert!(reply.as_ref().map_or(true, fits), "{reply:?}");
        }
        drop((watch, transaction));
        let _ = client.snapshot(&path).await;
    };
    tokio::select! {
        () = store => {}
        ended = timeout(Duration::from_secs(300), asking) => assert!(ended.is_ok(), "a request has no end"),
    }
}

/// How many whole requests there are, and whether what follows breaks the connection.
fn requests(mut said: &[u8]) -> (usize, bool) {
    let mut whole = 0;
    loop {
        match frame(said) {
            Ok((_, payload)) => {
                whole += 1;
                said = &said[HEADER + payload.len()..];
            }
            Err(too_long) => return (whole, too_long),
        }
    }
}

/// The first message: its type and payload. Or whether it announces more than it may.
fn frame(bytes: &[u8]) -> Result<(u32, &[u8]), bool> {
    let word = |at: usize| {
        let bytes = bytes
            .get(at..at + 4)
            .and_then(|word| word.try_into().ok())
            .ok_or(false)?;
        Ok::<u32, bool>(u32::from_ne_bytes(bytes))
    };
    let (kind, length) = (word(0)?, word(12)? as usize);
    if length > PAYLOAD_MAX {
        return Err(true);
    }
    Ok((kind, bytes.get(HEADER..HEADER + length).ok_or(false)?))
}
