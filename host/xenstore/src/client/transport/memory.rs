//! A server in the same process.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncReadExt, AsyncWrite, DuplexStream, ReadHalf, WriteHalf};

use super::{Incoming, Outgoing, Sent};
use crate::memory::MemoryStore;

pub(super) fn connect(place: &MemoryStore) -> io::Result<(Incoming, Outgoing)> {
    let (reader, half) = tokio::io::split(place.connect()?);
    let buffer = Vec::new();
    Ok((
        Incoming::Memory(Reader(reader)),
        Outgoing::Memory(Writer { half, buffer }),
    ))
}

#[derive(Debug)]
pub(in crate::client) struct Reader(ReadHalf<DuplexStream>);

impl Reader {
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).await
    }
}

#[derive(Debug)]
pub(in crate::client) struct Writer {
    half: WriteHalf<DuplexStream>,
    pub(super) buffer: Vec<u8>,
}

impl Writer {
    /// There is room for more than the window: what cannot be sent at once will never be.
    pub(super) fn flush(&mut self) -> Sent {
        while !self.buffer.is_empty() {
            match Pin::new(&mut self.half).poll_write(&mut Context::from_waker(Waker::noop()), &self.buffer) {
                Poll::Ready(Ok(written)) => drop(self.buffer.drain(..written)),
                _ => return Sent::Broken,
            }
        }
        Sent::All
    }
}
