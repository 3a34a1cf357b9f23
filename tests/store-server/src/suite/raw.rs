//! Cases: malformed messages, on the socket only.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{Bench, cases};
use xenplug_xenstore::{
    Endpoint,
    protocol::{Kind, append_frame, first_frame},
};

cases![
    reply_repeats_the_numbers_of_its_request,
    unknown_message_type_is_enosys,
    malformed_requests_are_refused,
    unknown_transaction_is_enoent,
    transactions_do_not_nest,
    watch_is_set_once_and_removed_once,
    reset_removes_watches_and_transactions,
    watch_of_an_invalid_path_is_einval,
    request_in_pieces_is_one_request,
    payload_of_4096_bytes_is_accepted,
    client_announcing_more_is_disconnected,
];

/// Connection that sends any bytes.
struct Raw(UnixStream, Vec<u8>);

impl Raw {
    /// Connects. `None` on the device, where the kernel itself refuses malformed messages.
    async fn new(bench: &Bench) -> Option<Self> {
        match &bench.endpoint {
            Endpoint::Socket(path) => Some(Self(UnixStream::connect(path).await.unwrap(), Vec::new())),
            _ => None,
        }
    }

    async fn send(&mut self, kind: u32, request: u32, transaction: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, kind, request, transaction, |to| {
            to.extend_from_slice(payload)
        });
        self.0.write_all(&bytes).await.unwrap();
    }

    /// Receives a message: type, numbers, payload. `None` at the end.
    async fn receive(&mut self) -> Option<(u32, u32, u32, Vec<u8>)> {
        loop {
            if let Some((frame, length)) = first_frame(&self.1).unwrap() {
                let message = (frame.kind, frame.request, frame.transaction, frame.payload.to_vec());
                self.1.drain(..length);
                return Some(message);
            }
            let mut bytes = [0; 8192];
            match self.0.read(&mut bytes).await {
                Ok(read) if read > 0 => self.1.extend_from_slice(&bytes[..read]),
                _ => return None,
            }
        }
    }

    /// Sends a request and returns the payload of the reply as text, after `!` if it is an error. Events are skipped.
    async fn request(&mut self, kind: Kind, transaction: u32, payload: &[u8]) -> String {
        self.send(kind as u32, 9, transaction, payload).await;
        loop {
            let (kind, _, _, payload) = self.receive().await.expect("a reply");
            let text = String::from_utf8_lossy(&payload).trim_end_matches('\0').to_owned();
            match Kind::of(kind) {
                Some(Kind::WatchEvent) => {}
                Some(Kind::Error) => return format!("!{text}"),
                _ => return text,
            }
        }
    }
}

async fn reply_repeats_the_numbers_of_its_request(bench: Bench) {
    let Some(mut raw) = Raw::new(&bench).await else { return };
    let transaction: u32 = raw.request(Kind::TransactionStart, 0, b"\0").await.parse().unwrap();
    let path = format!("{}\0", bench.home);
    for number in [0, 1, 7, u32::MAX] {
        raw.send(Kind::Read as u32, number, transaction, path.as_bytes()).await;
        assert_eq!(
            raw.receive().await,
            Some((Kind::Read as u32, number, transaction, Vec::new()))
        );
        raw.send(Kind::Read as u32, number, transaction, b"//\0").await;
        assert_eq!(
            raw.receive().await,
            Some((Kind::Error as u32, number, transaction, b"EINVAL\0".to_vec()))
        );
    }
    assert_eq!(raw.request(Kind::TransactionEnd, transaction, b"T\0").await, "OK");
}

async fn unknown_message_type_is_enosys(bench: Bench) {
    let Some(mut raw) = Raw::new(&bench).await else { return };
    for kind in [20, 23, 65535, u32::MAX, Kind::WatchEvent as u32, Kind::Error as u32] {
        raw.send(kind, 1, 0, b"a\0").await;
        assert_eq!(
            raw.receive().await,
            Some((Kind::Error as u32, 1, 0, b"ENOSYS\0".to_vec())),
            "{kind}"
        );
    }
}

async fn malformed_requests_are_refused(bench: Bench) {
    let Some(mut raw) = Raw::new(&bench).await else { return };
    let cases: [(Kind, &[u8]); 17] = [
        (Kind::Read, b""),
        (Kind::Read, b"/no-nul"),
        (Kind::Read, b"/two\0strings\0"),
        (Kind::Read, b"\0"),
        (Kind::Read, b"//\0"),
        (Kind::Read, b"/a/\0"),
        (Kind::Read, b"/a b\0"),
        (Kind::Read, b"/\xff\0"),
        (Kind::Write, b"/no-nul"),
        (Kind::Write, b"/sp ace\0x"),
        (Kind::Mkdir, b"/a//b\0"),
        (Kind::DirectoryPart, b"/\0"),
        (Kind::SetPerms, b"/tool\0"),
        (Kind::SetPerms, b"/tool\0x1\0"),
        (Kind::Watch, b"/a\0"),
        (Kind::Unwatch, b"/a\0"),
        (Kind::TransactionEnd, b"maybe\0"),
    ];
    for (kind, payload) in cases {
        // EINVAL, except for a missing string, where xenstored replies with an earlier errno.
        let reply = raw.request(kind, 0, payload).await;
        assert!(reply.starts_with("!E"), "{kind:?} {}: {reply}", payload.escape_ascii());
    }
}

async fn unknown_transaction_is_enoent(bench: Bench) {
    let Some(mut raw) = Raw::new(&bench).await else { return };
    assert_eq!(raw.request(Kind::Read, 4242, b"/tool\0").await, "!ENOENT");
    assert_eq!(raw.request(Kind::TransactionEnd, 4242, b"T\0").await, "!ENOENT");
    assert_eq!(raw.request(Kind::TransactionEnd, 0, b"T\0").await, "!ENOENT");
}

async fn transactions_do_not_nest(bench: Bench) {
    let Some(mut raw) = Raw::new(&bench).await else { return };
    let transaction: u32 = raw.request(Kind::TransactionStart, 0, b"\0").await.parse().unwrap();
    assert_eq!(raw.request(Kind::TransactionStart, transaction, b"\0").await, "!EBUSY");
    assert_eq!(raw.request(Kind::TransactionEnd, transaction, b"F\0").await, "OK");
    assert_eq!(raw.request(Kind::TransactionEnd, transaction, b"F\0").await, "!ENOENT");
}

async fn watch_is_set_once_and_removed_once(bench: Bench) {
    let Some(mut raw) = Raw::new(&bench).await else { return };
    for (kind, payload, reply) in [
        (Kind::Watch, "/a\0token\0", "OK"),
        (Kind::Watch, "/a\0token\0", "!EEXIST"),
        (Kind::Watch, "/a\0other\0", "OK"),
        (Kind::Unwatch, "/a\0third\0", "!ENOENT"),
        (Kind::Unwatch, "/a\0token\0", "OK"),
        (Kind::Unwatch, "/a\0token\0", "!ENOENT"),
    ] {
        assert_eq!(
            raw.request(kind, 0, payload.as_bytes()).await,
            reply,
            "{kind:?} {payload:?}"
        );
    }
}

async fn reset_removes_watches_and_transactions(bench: Bench) {
    let Some(mut raw) = Raw::new(&bench).await else { return };
    assert_eq!(raw.request(Kind::Watch, 0, b"/a\0token\0").await, "OK");
    let transaction: u32 = raw.request(Kind::TransactionStart, 0, b"\0").await.parse().unwrap();
    assert_eq!(raw.request(Kind::ResetWatches, 0, b"\0").await, "OK");
    assert_eq!(raw.request(Kind::Unwatch, 0, b"/a\0token\0").await, "!ENOENT");
    assert_eq!(raw.request(Kind::TransactionEnd, transaction, b"T\0").await, "!ENOENT");
}

async fn watch_of_an_invalid_path_is_einval(bench: Bench) {
    let Some(mut raw) = Raw::new(&bench).await else { return };
    for path in ["/a//b", "/a/", "a b"] {
        assert_eq!(
            raw.request(Kind::Watch, 0, format!("{path}\0token\0").as_bytes()).await,
            "!EINVAL",
            "{path}"
        );
    }
}

async fn request_in_pieces_is_one_request(bench: Bench) {
    let Some(mut raw) = Raw::new(&bench).await else { return };
    let mut bytes = Vec::new();
    for number in 0..3 {
        append_frame(&mut bytes, Kind::Write as u32, number, 0, |to| {
            to.extend_from_slice(format!("{}\0value", bench.at("a")).as_bytes());
        });
    }
    for piece in bytes.chunks(7) {
        raw.0.write_all(piece).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    for number in 0..3 {
        assert_eq!(
            raw.receive().await,
            Some((Kind::Write as u32, number, 0, b"OK\0".to_vec()))
        );
    }
}

async fn payload_of_4096_bytes_is_accepted(bench: Bench) {
    let Some(mut raw) = Raw::new(&bench).await else { return };
    let mut payload = format!("{}\0", bench.at("a")).into_bytes();
    payload.resize(4096, b'x');
    assert_eq!(raw.request(Kind::Write, 0, &payload).await, "OK");
    assert_eq!(
        bench.client.read(&bench.at("a")).await.unwrap().len(),
        4096 - bench.at("a").as_str().len() - 1
    );
}

async fn client_announcing_more_is_disconnected(bench: Bench) {
    for len in [4097, u32::MAX] {
        let Some(mut raw) = Raw::new(&bench).await else { return };
        let header = [Kind::Read as u32, 1, 0, len].map(u32::to_ne_bytes).concat();
        raw.0.write_all(&header).await.unwrap();
        assert_eq!(raw.receive().await, None);
    }
}
