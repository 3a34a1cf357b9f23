//! Messages of the xenstore protocol, in both directions.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::Builder,
    sync::mpsc,
    time::timeout,
};
use xenplug_store_server::{self as server, Server, Transport};
use xenplug_xenstore::{Client, Options, Path, Reply, Request};

/// Sizes of a header and of the longest payload (xen/include/public/io/xs_wire.h).
const HEADER: usize = 16;
const PAYLOAD_MAX: usize = 4096;
/// `XS_ERROR` and `XS_WATCH_EVENT`.
const ERROR: u32 = 16;
const EVENT: u32 = 15;
/// Number of nodes of a new server.
const NODES: usize = 3;

/// Sends the bytes after the first: to the store from domain 0 or 7, or to a client.
pub(crate) fn check(bytes: &[u8]) {
    let Some((side, bytes)) = bytes.split_first() else {
        return;
    };
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        match side % 3 {
            0 => to_the_store(bytes, 0).await,
            1 => to_the_store(bytes, 7).await,
            _ => to_a_client(bytes).await,
        }
    });
}

/// Checks that the store replies to each whole request once, with whole messages, and serves other clients.
async fn to_the_store(bytes: &[u8], domain: u16) {
    let server = Server::new(server::Options::default());
    let mut stream = server.transport(domain, None).connect().expect("the transport is open");
    let (sent, broken) = requests(bytes);
    stream.write_all(bytes).await.expect("the stream has space");
    let mut replies = 0;
    let mut received = Vec::new();
    while timeout(Duration::from_secs(1), stream.read_buf(&mut received))
        .await
        .is_ok_and(|read| read.is_ok_and(|n| n > 0))
    {}
    let mut rest = &received[..];
    while !rest.is_empty() {
        let (kind, payload) = frame(rest).expect("the store sends whole messages");
        assert!(kind != ERROR || payload.ends_with(b"\0"), "an error without a name");
        replies += usize::from(kind != EVENT);
        rest = &rest[HEADER + payload.len()..];
    }
    assert!(replies <= sent, "{replies} replies to {sent} requests");
    assert!(broken || replies == sent, "{replies} replies to {sent} requests");
    assert!(
        domain == 0 || server.stats().nodes == NODES,
        "an unprivileged domain created nodes at the root"
    );
    another_is_served(&server).await;
}

/// Checks that another client can write and read.
async fn another_is_served(server: &Server) {
    let endpoint = server.transport(0, None).endpoint();
    let client = Client::connect(endpoint).await.expect("the transport is open");
    let path: Path = "/tool/another".parse().expect("a path");
    let value = [0, 255, 47, 0];
    client.write(&path, value).await.expect("domain 0 may write");
    assert_eq!(client.read(&path).await.expect("the node exists"), value);
}

/// Checks that every request of a client ends, with a reply of its kind or an error.
async fn to_a_client(bytes: &[u8]) {
    let (accept, mut accepted) = mpsc::unbounded_channel::<DuplexStream>();
    let transport = Transport::new(move |stream| drop(accept.send(stream)), None);
    let mut options = Options::default();
    options.seed = Some(0);
    let client = Client::connect_with(transport.endpoint(), options)
        .await
        .expect("the transport is open");
    let path: Path = "/a/b".parse().expect("a path");
    let bytes = bytes.to_vec();
    let store = async {
        let mut connections = Vec::new();
        while let Some(mut stream) = accepted.recv().await {
            // Only the first connection sends bytes. The client closes the silent ones after its deadline.
            if connections.is_empty() {
                let _ = stream.write_all(&bytes).await;
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
        ended = timeout(Duration::from_secs(300), asking) => assert!(ended.is_ok(), "a request does not end"),
    }
}

/// Counts the whole requests. Returns too whether the bytes after them break the connection.
fn requests(mut bytes: &[u8]) -> (usize, bool) {
    let mut whole = 0;
    loop {
        match frame(bytes) {
            Ok((_, payload)) => {
                whole += 1;
                bytes = &bytes[HEADER + payload.len()..];
            }
            Err(too_long) => return (whole, too_long),
        }
    }
}

/// Parses the first message: its type and payload. The error is whether it announces too long a payload.
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
