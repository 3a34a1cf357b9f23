//! Transports to xenstored: its socket and the kernel's device, and for tests a store in the same process.

mod device;
#[cfg(feature = "server")]
mod in_process;
mod outcome;
mod socket;

use std::io;

use crate::{Endpoint, Errno, wire::Kind};

pub(super) use outcome::{Arrival, Sent};
pub(super) use socket::SendSpace;

/// Largest number of requests on the wire, on any transport: an unprivileged domain may have 20
/// (tools/xenstored/core.c, `quota_req_outstanding`).
pub(super) const WINDOW: usize = 16;

/// Opens both directions of a transport.
pub(super) async fn open(endpoint: &Endpoint) -> io::Result<(Incoming, Outgoing)> {
    match endpoint {
        Endpoint::Socket(path) => {
            let (reader, writer) = socket::connect(path).await?;
            Ok((Incoming::Socket(reader), Outgoing::Socket(writer)))
        }
        Endpoint::Device(path) => {
            let (reader, writer) = device::open(path)?;
            Ok((Incoming::Device(reader), Outgoing::Device(writer)))
        }
        #[cfg(feature = "server")]
        Endpoint::InProcess(store) => {
            let (reader, writer) = in_process::connect(store)?;
            Ok((Incoming::InProcess(reader), Outgoing::InProcess(writer)))
        }
    }
}

/// Source of replies and events.
#[derive(Debug)]
pub(super) enum Incoming {
    Socket(socket::Reader),
    Device(device::Reader),
    #[cfg(feature = "server")]
    InProcess(in_process::Reader),
}

impl Incoming {
    /// Waits for bytes, at most as many as the buffer holds, or for refusals. Safe to cancel. The end of the stream is
    /// an error.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<Arrival> {
        loop {
            let arrival = match self {
                Self::Socket(reader) => reader.read(buffer).await.map(Arrival::Bytes),
                Self::Device(reader) => reader.read(buffer).await,
                #[cfg(feature = "server")]
                Self::InProcess(reader) => reader.read(buffer).await.map(Arrival::Bytes),
            };
            match arrival {
                Ok(Arrival::Bytes(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                arrival => return arrival,
            }
        }
    }
}

/// Sink of requests. It collects them, and [`Outgoing::flush`] sends them together, without blocking.
#[derive(Debug)]
pub(super) enum Outgoing {
    Socket(socket::Writer),
    Device(device::Writer),
    #[cfg(feature = "server")]
    InProcess(in_process::Writer),
}

impl Outgoing {
    /// Returns the buffer to append whole messages to, with one [`Outgoing::appended`] after each.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Socket(writer) => &mut writer.buffer,
            Self::Device(writer) => &mut writer.buffer,
            #[cfg(feature = "server")]
            Self::InProcess(writer) => &mut writer.buffer,
        }
    }

    /// Marks the end of a message.
    pub(super) fn appended(&mut self, kind: Kind, request: u32) {
        if let Self::Device(writer) = self {
            writer.appended(kind, request);
        }
    }

    /// Sends the appended messages. `refused` receives those that the kernel itself refused, by their number.
    pub(super) fn flush(&mut self, refused: &mut Vec<(u32, Errno)>) -> Sent {
        match self {
            Self::Socket(writer) => writer.flush(),
            Self::Device(writer) => writer.flush(refused),
            #[cfg(feature = "server")]
            Self::InProcess(writer) => writer.flush(),
        }
    }

    /// Returns how many requests may be on the wire at a time.
    ///
    /// The device takes one. With several requests in a domain's ring, xenstored 4.17.7 on real Xen refused reads of
    /// the domain's own nodes (EACCES) and sent other clients, the toolstack among them, malformed replies; with one at
    /// a time it does neither. libxenstore also waits for each reply.
    pub(super) fn window(&self) -> usize {
        match self {
            Self::Socket(_) => WINDOW,
            #[cfg(feature = "server")]
            Self::InProcess(_) => WINDOW,
            Self::Device(_) => 1,
        }
    }

    /// Returns the socket space to wait for while bytes are left to send.
    pub(super) fn send_space(&self) -> Option<SendSpace> {
        match self {
            Self::Socket(writer) => writer.send_space(),
            Self::Device(_) => None,
            #[cfg(feature = "server")]
            Self::InProcess(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
