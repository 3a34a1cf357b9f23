//! Proxy of the store that delays one request, so that the test can act before it arrives.

use std::path::Path;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::oneshot,
};

/// Bytes of `struct xsd_sockmsg` (xs_wire.h); the last four are the length of what follows.
const HEADER: usize = 16;

/// A delayed request.
pub(super) struct DelayedRequest {
    /// The request has arrived.
    pub(super) reached: oneshot::Receiver<()>,
    /// Forwards the request.
    pub(super) go_on: oneshot::Sender<()>,
}

/// Forwards one connection from `socket` to `store`, and delays its request with this number, counted from 1.
pub(super) fn delay_request(socket: &Path, store: &Path, number: usize) -> DelayedRequest {
    let listener = UnixListener::bind(socket).unwrap();
    let store = store.to_owned();
    let (tell, reached) = oneshot::channel();
    let (go_on, wait) = oneshot::channel();
    tokio::task::spawn_local(async move {
        let (mut requests, mut replies) = listener.accept().await.unwrap().0.into_split();
        let (mut answers, mut onwards) = UnixStream::connect(store).await.unwrap().into_split();
        tokio::task::spawn_local(async move { tokio::io::copy(&mut answers, &mut replies).await });
        let mut held = Some((number, tell, wait));
        for count in 1.. {
            let mut frame = vec![0; HEADER];
            if requests.read_exact(&mut frame).await.is_err() {
                return;
            }
            let length = u32::from_ne_bytes(frame[12..].try_into().unwrap());
            frame.resize(HEADER + length as usize, 0);
            requests.read_exact(&mut frame[HEADER..]).await.unwrap();
            if let Some((_, tell, wait)) = held.take_if(|(number, ..)| *number == count) {
                let _ = tell.send(());
                let _ = wait.await;
            }
            onwards.write_all(&frame).await.unwrap();
        }
    });
    DelayedRequest { reached, go_on }
}
