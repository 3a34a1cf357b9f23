//! The socket of xenstored.

use std::{io, path::Path, sync::Arc};

use tokio::{
    io::AsyncReadExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::outcome::Sent;

pub(super) async fn connect(path: &Path) -> io::Result<(Reader, Writer)> {
    let (reader, writer) = UnixStream::connect(path).await?.into_split();
    let writer = Writer {
        half: Arc::new(writer),
        buffer: Vec::new(),
    };
    Ok((Reader(reader), writer))
}

#[derive(Debug)]
pub(in crate::client) struct Reader(OwnedReadHalf);

impl Reader {
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).await
    }
}

#[derive(Debug)]
pub(in crate::client) struct Writer {
    half: Arc<OwnedWriteHalf>,
    /// Whole messages, of which the beginning of the first may have been sent.
    pub(super) buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn flush(&mut self) -> Sent {
        while !self.buffer.is_empty() {
            match self.half.try_write(&self.buffer) {
                Ok(written) => drop(self.buffer.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Later,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Sent::Broken,
            }
        }
        Sent::All
    }

    pub(super) fn send_space(&self) -> Option<SendSpace> {
        (!self.buffer.is_empty()).then(|| SendSpace(self.half.clone()))
    }
}

/// Space in the buffer of the socket.
#[derive(Debug)]
pub(in crate::client) struct SendSpace(Arc<OwnedWriteHalf>);

impl SendSpace {
    /// Waits until there is space, or the connection is broken.
    pub(in crate::client) async fn wait(&self) {
        // The next write reports the error.
        let _ = self.0.writable().await;
    }
}
