//! Sockets for requests to the kernel and their answers.
//!
//! The kernel handles a request during send(2), so that the answer is there when the caller receives. A blocking socket
//! takes two system calls a request, and no thread waits for another.
#![allow(unsafe_code, reason = "setsockopt with a forced buffer size")]

use std::{io, os::fd::AsRawFd, sync::Mutex, time::Duration};

use netlink_sys::{Socket, SocketAddr, protocols};
use rustix::{
    io::Errno,
    net::sockopt::{Timeout, set_socket_timeout},
};

use super::{
    Message, Messages, NLM_F_ACK_TLVS, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, attributes, messages, text, u32_at,
};
use crate::{Error, linux::retry::retry, sync::lock};

/// Size of the kernel's largest datagram in a dump (net/netlink/af_netlink.c, `netlink_dump`).
const BUFFER: usize = 32 * 1024;

/// Attempts at a dump while objects change. The last one is used as it is, because a busy host gives no better one.
const DUMPS: u32 = 8;

/// Timeout of an answer, which protects against an answer that never comes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Netlink protocol of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::linux) enum Protocol {
    /// Links, addresses and routes.
    #[default]
    Route,
    /// nf_tables.
    Netfilter,
}

/// Pool of idle sockets.
#[derive(Debug, Default)]
pub(in crate::linux) struct Sockets {
    protocol: Protocol,
    idle: Mutex<Vec<Socket>>,
}

/// Error of the kernel for a request.
#[derive(Clone, Debug)]
pub(in crate::linux) struct Failure {
    pub errno: Errno,
    /// The kernel's error text (extended acknowledgement), if it sent one.
    text: Option<String>,
}

impl Failure {
    /// Converts to the error of the action `what`.
    pub(in crate::linux) fn of(self, what: impl Into<String>) -> Error {
        let error = Error::kernel(what, self.errno);
        match (error, self.text) {
            (
                Error::Kernel {
                    what,
                    errno,
                    source_text,
                },
                Some(text),
            ) => Error::Kernel {
                what,
                errno,
                source_text: format!("{source_text}: {text}"),
            },
            (error, _) => error,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self {
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
            text: None,
        }
    }
}

impl Sockets {
    /// Makes an empty pool for a protocol.
    pub(in crate::linux) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            idle: Mutex::default(),
        }
    }

    /// Sends messages, and waits for the acknowledgement of the last one.
    pub(in crate::linux) fn execute(&self, request: &Messages) -> Result<(), Failure> {
        self.query(request, |_| None::<()>).map(drop)
    }

    /// Sends messages, and reads the parts of the answer to the last one.
    pub(in crate::linux) fn query<T>(
        &self,
        request: &Messages,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        let idle = lock(&self.idle).pop();
        let socket = match idle {
            Some(socket) => socket,
            None => self.open()?,
        };
        let mut dumps = 0;
        loop {
            dumps += 1;
            // A socket with unread messages would give the next request a wrong answer, so it is closed.
            match exchange(&socket, request, &read)? {
                Answer::Interrupted(_) if dumps < DUMPS => {}
                Answer::Failed(failure) => {
                    if request.count == 1 {
                        lock(&self.idle).push(socket);
                    }
                    return Err(failure);
                }
                Answer::Done(parts) | Answer::Interrupted(parts) => {
                    lock(&self.idle).push(socket);
                    return Ok(parts);
                }
            }
        }
    }

    fn open(&self) -> io::Result<Socket> {
        let mut socket = Socket::new(match self.protocol {
            Protocol::Route => protocols::NETLINK_ROUTE,
            Protocol::Netfilter => protocols::NETLINK_NETFILTER,
        })?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        if let Protocol::Route = self.protocol {
            // Makes the kernel apply the filters of dump requests.
            socket.set_netlink_get_strict_chk(true)?;
        }
        Ok(socket)
    }
}

enum Answer<T> {
    Done(Vec<T>),
    /// A dump during which objects changed, to be requested again.
    Interrupted(Vec<T>),
    Failed(Failure),
}

fn exchange<T>(
    socket: &Socket,
    request: &Messages,
    read: &impl Fn(&Message<'_>) -> Option<T>,
) -> Result<Answer<T>, Failure> {
    retry(|| socket.send(&request.buffer, 0))?;
    let mut parts = Vec::new();
    let mut interrupted = false;
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        retry(|| socket.recv(&mut buffer, 0))?;
        for message in messages(&buffer) {
            interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.kind {
                NLMSG_ERROR => match failure(&message) {
                    Some(failure) => return Ok(Answer::Failed(failure)),
                    None if message.sequence == request.answered => return Ok(Answer::Done(parts)),
                    None => {}
                },
                NLMSG_DONE if interrupted => return Ok(Answer::Interrupted(parts)),
                NLMSG_DONE => return Ok(Answer::Done(parts)),
                _ => {
                    parts.extend(read(&message));
                    if request.one_answer {
                        return Ok(Answer::Done(parts));
                    }
                }
            }
        }
    }
}

/// Reads the error in an acknowledgement: its number, the header of the refused message, attributes. `None` for
/// success.
fn failure(message: &Message<'_>) -> Option<Failure> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let number = u32_at(message.body, 0)?.cast_signed();
    if number == 0 {
        return None;
    }
    let mut attributes_of_error = attributes(
        message.body,
        if message.flags & NLM_F_ACK_TLVS != 0 {
            20
        } else {
            usize::MAX
        },
    );
    Some(Failure {
        errno: Errno::from_raw_os_error(number.saturating_neg()),
        text: attributes_of_error
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
            .and_then(|(_, value)| text(value))
            .map(String::from),
    })
}

/// Opens a socket that receives a message about each change of a link in this network namespace.
pub(in crate::linux) fn subscribe_to_links() -> io::Result<Socket> {
    const RTNLGRP_LINK: u32 = 1;
    let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
    socket.bind_auto()?;
    // A thousand vifs may appear at once, so the buffer is large.
    let size: libc::c_int = 8 << 20;
    let length = libc::socklen_t::try_from(size_of_val(&size)).unwrap_or_default();
    // SAFETY: the kernel reads one int of that length. If it refuses, the default size stays.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const size).cast(),
            length,
        );
    }
    socket.add_membership(RTNLGRP_LINK)?;
    Ok(socket)
}
