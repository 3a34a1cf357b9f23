//! Connection of one client: reading requests and writing replies.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
};
use xenplug_xenstore::protocol::{HEADER, PAYLOAD_MAX, first_frame};

use crate::{outbox::Outbox, store::Store};

/// Starts a task that serves a client.
pub(crate) fn start(
    store: &Arc<Mutex<Store>>,
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    domid: u16,
    stalled: watch::Receiver<bool>,
) {
    let outbox = Arc::new(Outbox::default());
    let peer = store
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .connect(domid, outbox.clone());
    let (reader, writer) = tokio::io::split(stream);
    let store = store.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            ended = read(&store, peer, reader, &outbox, stalled) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "client connection ended");
                }
            }
            _ = write(writer, &outbox) => {}
        }
        store.lock().unwrap_or_else(PoisonError::into_inner).leave(peer);
    });
}

async fn read(
    store: &Mutex<Store>,
    peer: u64,
    mut reader: impl AsyncRead + Unpin,
    outbox: &Outbox,
    mut stalled: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 4 * (HEADER + PAYLOAD_MAX)];
    let mut filled = 0;
    loop {
        let read = reader.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut used = 0;
        // As xenstored does, disconnect a client that announces too long a payload.
        while let Some((frame, length)) = first_frame(&buffer[used..filled]).map_err(io::Error::other)? {
            if stalled.wait_for(|stalled| !*stalled).await.is_err() {
                return Ok(());
            }
            while outbox.is_full() {
                outbox.drained.notified().await;
            }
            store.lock().unwrap_or_else(PoisonError::into_inner).handle(peer, frame);
            used += length;
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, outbox: &Outbox) -> io::Result<()> {
    loop {
        outbox.news.notified().await;
        let Some(bytes) = outbox.take() else {
            return Ok(());
        };
        writer.write_all(&bytes).await?;
        outbox.drained.notify_one();
    }
}
