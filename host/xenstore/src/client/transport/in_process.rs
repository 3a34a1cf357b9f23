//! Transport to a store in the same process.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncReadExt, AsyncWrite, DuplexStream, ReadHalf, WriteHalf};

use super::outcome::Sent;
use crate::in_process::InProcess;

pub(super) fn connect(store: &InProcess) -> io::Result<(Reader, Writer)> {
    let (reader, half) = tokio::io::split(store.connect()?);
    let buffer = Vec::new();
    Ok((Reader(reader), Writer { half, buffer }))
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
    /// The stream holds more than the window of requests: bytes that do not fit at once never will.
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
