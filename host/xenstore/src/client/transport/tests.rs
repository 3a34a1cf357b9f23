//! Tests of the transports: that of the device on a simulated one that takes one message per write, as the kernel's
//! does.

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixStream},
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use xenplug_store_server::{self as server, Server};

use super::*;
use crate::{Backoff, Client, Error, Event, Options, Path, Request, client::transport, wire::first_frame};

const DEADLINE: Duration = Duration::from_secs(20);

fn node(path: &str) -> Path {
    path.parse().unwrap()
}

fn file(descriptor: impl Into<OwnedFd>) -> File {
    File::from(descriptor.into())
}

/// Client on open files. After it loses them, its endpoint is absent.
fn client(replies: File, requests: File, deadline: Duration) -> Client {
    let options = Options {
        deadline,
        ..Options::default()
    };
    Client::over(
        {
            let (reader, writer) = device::over(replies, requests).unwrap();
            (Incoming::Device(reader), Outgoing::Device(writer))
        },
        Endpoint::Device("/nowhere".into()),
        options,
    )
}

/// Stream that the client reads replies from, and its other end.
fn replies() -> (File, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (file(ours), theirs)
}

/// Client on a simulated device that forwards to a server.
fn through_device(server: PathBuf) -> Client {
    let (requests, taken) = UnixDatagram::pair().unwrap();
    let (replies, mut given) = replies();
    let mut to_server = UnixStream::connect(server).unwrap();
    let mut from_server = to_server.try_clone().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let open = Arc::clone(&asked);
    thread::spawn(move || {
        let mut message = [0; 8192];
        // Each write of the client is one datagram.
        while let Ok(size @ 1..) = taken.recv(&mut message) {
            assert!(size <= 4096, "the kernel's buffer holds 4096 bytes");
            let (_, length) = first_frame(&message[..size]).unwrap().expect("a whole message");
            assert_eq!(length, size, "the kernel drops what follows the first message");
            let before = asked.fetch_add(1, Ordering::SeqCst);
            assert_eq!(before, 0, "the ring never holds a second request");
            to_server.write_all(&message[..size]).unwrap();
        }
        let _ = to_server.shutdown(std::net::Shutdown::Both);
    });
    thread::spawn(move || {
        let mut bytes = [0; 8192];
        let mut unread = Vec::new();
        while let Ok(size @ 1..) = from_server.read(&mut bytes) {
            unread.extend_from_slice(&bytes[..size]);
            while let Some((frame, length)) = first_frame(&unread).unwrap() {
                if frame.kind != Kind::WatchEvent as u32 {
                    open.fetch_sub(1, Ordering::SeqCst);
                }
                unread.drain(..length);
            }
            if given.write_all(&bytes[..size]).is_err() {
                return;
            }
        }
    });
    client(replies, file(requests), DEADLINE)
}

#[tokio::test]
async fn device_takes_one_message_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let server = Server::bind(&path, server::Options::default()).unwrap();
    let client = through_device(path);
    let home = node("/a");
    let mut watch = client.watch(&home).await.unwrap();
    assert_eq!(watch.next().await, Some(Event::Changed(home.clone())));
    let writes: Vec<_> = (0..100)
        .map(|number| Request::Write(home.join(&number.to_string()).unwrap(), vec![b'x'; 3000]))
        .collect();
    for reply in client.batch(writes.clone()).await.unwrap() {
        reply.unwrap();
    }
    let snapshot = client.snapshot(&home).await.unwrap().unwrap();
    assert!(snapshot.len() == 100 && snapshot.values().all(|value| value.len() == 3000));
    client
        .transaction(&Backoff::default(), async |transaction| {
            transaction.batch(writes.clone()).await.map(drop)
        })
        .await
        .unwrap();
    let largest = vec![7; 4080 - "/a\0".len()];
    client.write(&home, &largest).await.unwrap();
    assert!(matches!(
        client.write(&home, [&largest[..], b"x"].concat()).await,
        Err(Error::TooLarge { .. })
    ));
    for number in 0..100 {
        let expected = home.join(&number.to_string()).unwrap();
        assert_eq!(watch.next().await, Some(Event::Changed(expected)));
    }
    drop(watch);
    while server.stats().watches > 0 {
        client.read(&home).await.unwrap();
    }
}

#[tokio::test]
async fn kernel_refusal_fails_only_its_request() {
    // Every write to /dev/full fails with ENOSPC.
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let (incoming, _given) = replies();
    let client = client(incoming, full(), DEADLINE);
    for _ in 0..3 {
        assert_eq!(
            client.read(&node("/a")).await.unwrap_err().errno(),
            Some(Errno::NoSpace)
        );
        // Through the thread, as WATCH blocks.
        assert_eq!(
            client.watch(&node("/a")).await.unwrap_err().errno(),
            Some(Errno::NoSpace)
        );
    }
    let many = (0..40).map(|_| Request::Read(node("/a"))).collect();
    for reply in client.batch(many).await.unwrap() {
        assert_eq!(reply.unwrap_err().errno(), Some(Errno::NoSpace));
    }
    assert!(client.is_connected());
}

#[tokio::test]
async fn blocking_write_does_not_block_the_runtime() {
    let (requests, mut unread) = UnixStream::pair().unwrap();
    let (incoming, _given) = replies();
    // Fill the buffer of the socket.
    requests.set_nonblocking(true).unwrap();
    while (&requests).write(&[0; 4096]).is_ok() {}
    requests.set_nonblocking(false).unwrap();
    let client = client(incoming, file(requests), Duration::from_millis(300));
    let start = Instant::now();
    let (path, ticks) = (node("/a"), async {
        let mut ticks = 0;
        while start.elapsed() < Duration::from_millis(200) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            ticks += 1;
        }
        ticks
    });
    let (watch, read, ticks) = tokio::join!(client.watch(&path), client.read(&path), ticks);
    assert!(watch.unwrap_err().is_disconnected() && read.unwrap_err().is_disconnected());
    assert!(ticks > 5, "the runtime was blocked");
    assert!(start.elapsed() < Duration::from_secs(3));
    // Unblock the thread.
    let _ = unread.shutdown(std::net::Shutdown::Both);
    let _ = unread.read(&mut [0; 1]);
}

#[tokio::test]
async fn end_of_the_device_disconnects() {
    let (incoming, given) = replies();
    let (requests, _taken) = UnixDatagram::pair().unwrap();
    let client = client(incoming, file(requests), DEADLINE);
    let path = node("/a");
    let losing = async { drop(given) };
    let (read, ()) = tokio::join!(client.read(&path), losing);
    assert!(matches!(read, Err(Error::Disconnected)));
}

#[tokio::test]
async fn bytes_beyond_the_socket_buffer_are_sent_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (_incoming, mut outgoing) = transport::open(&Endpoint::Socket(path)).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    outgoing.buffer().extend_from_slice(&bytes);
    assert_eq!(outgoing.flush(&mut Vec::new()), Sent::Later);
    let sending = async {
        while outgoing.flush(&mut Vec::new()) == Sent::Later {
            outgoing.send_space().unwrap().wait().await;
        }
        assert!(outgoing.send_space().is_none());
    };
    let receiving = async {
        let mut received = vec![0; bytes.len()];
        tokio::io::AsyncReadExt::read_exact(&mut peer, &mut received)
            .await
            .unwrap();
        received
    };
    let ((), received) = tokio::join!(sending, receiving);
    assert!(received == bytes);
    drop(peer);
    outgoing.buffer().push(0);
    assert_eq!(outgoing.flush(&mut Vec::new()), Sent::Broken);
}
