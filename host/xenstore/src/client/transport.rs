//! The two ways to xenstored: its socket, and the kernel's device. And one to a server in this process.

mod device;
#[cfg(feature = "server")]
mod in_process;
mod socket;

use std::io;

use crate::{Endpoint, Errno, wire::Kind};

pub(super) use socket::Room;

/// The most requests on the wire at a time, on any transport: an unprivileged domain may have 20
/// (tools/xenstored/core.c, `quota_req_outstanding`).
pub(super) const WINDOW: usize = 16;

/// Opens both directions.
pub(super) async fn open(endpoint: &Endpoint) -> io::Result<(Incoming, Outgoing)> {
    match endpoint {
        Endpoint::Socket(path) => socket::connect(path).await,
        Endpoint::Device(path) => device::open(path),
        #[cfg(feature = "server")]
        Endpoint::InProcess(store) => in_process::connect(store),
    }
}

/// Where replies and events come from.
#[derive(Debug)]
pub(super) enum Incoming {
    Socket(socket::Reader),
    Device(device::Reader),
    #[cfg(feature = "server")]
    InProcess(in_process::Reader),
}

impl Incoming {
    /// Waits for bytes, at most as many as the buffer has room for, or for refusals. Safe to cancel. An end of the
    /// stream is an error.
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

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// So many bytes.
    Bytes(usize),
    /// Requests that the kernel refused, by their number.
    Refused(Vec<(u32, Errno)>),
}

/// Where requests go. They are collected, and sent together by [`Outgoing::flush`], which does not block.
#[derive(Debug)]
pub(super) enum Outgoing {
    Socket(socket::Writer),
    Device(device::Writer),
    #[cfg(feature = "server")]
    InProcess(in_process::Writer),
}

/// What came of sending.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All is sent.
    All,
    /// The rest can be sent when the peer has read some.
    Later,
    /// The connection is broken.
    Broken,
}

impl Outgoing {
    /// The buffer to append whole messages to, one [`Outgoing::appended`] after each.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Socket(writer) => &mut writer.buffer,
            Self::Device(writer) => &mut writer.buffer,
            #[cfg(feature = "server")]
            Self::InProcess(writer) => &mut writer.buffer,
        }
    }

    /// Tells that one more message is complete.
    pub(super) fn appended(&mut self, kind: Kind, request: u32) {
        if let Self::Device(writer) = self {
            writer.appended(kind, request);
        }
    }

    /// Sends what was appended. `refused` receives the messages that the kernel itself refused, by their number.
    pub(super) fn flush(&mut self, refused: &mut Vec<(u32, Errno)>) -> Sent {
        match self {
            Self::Socket(writer) => writer.flush(),
            Self::Device(writer) => writer.flush(refused),
            #[cfg(feature = "server")]
            Self::InProcess(writer) => writer.flush(),
        }
    }

    /// How many requests may be on the wire at a time.
    ///
    /// One through the device. With more of them in a domain's ring, xenstored 4.17.7 was seen on real Xen to refuse
    /// reads of the domain's own nodes (EACCES), and to answer other clients, the toolstack among them, with nonsense;
    /// with one at a time that was not seen again. libxenstore, too, waits for each reply.
    pub(super) fn window(&self) -> usize {
        match self {
            Self::Socket(_) => WINDOW,
            #[cfg(feature = "server")]
            Self::InProcess(_) => WINDOW,
            Self::Device(_) => 1,
        }
    }

    /// What to wait for if some is left to be sent.
    pub(super) fn room(&self) -> Option<Room> {
        match self {
            Self::Socket(writer) => writer.room(),
            Self::Device(_) => None,
            #[cfg(feature = "server")]
            Self::InProcess(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
