//! Blocking client: one request at a time on one connection, for a program that runs briefly.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    thread,
    time::Duration,
};

use crate::{
    Backoff, Endpoint, Errno, Error, Path, Reply, Request,
    wire::{HEADER, Kind, PAYLOAD_MAX, append_frame, first_frame, only_string},
};

/// A connection to the store. It is not made again: after [`Error::Disconnected`], [`Error::Timeout`] or
/// [`Error::Protocol`] every request fails.
#[derive(Debug)]
pub struct Client {
    file: File,
    is_device: bool,
    deadline: Duration,
    is_broken: bool,
    /// Number of the last request.
    number: u32,
    /// Bytes received and not yet parsed.
    buffer: Vec<u8>,
}

impl Client {
    /// Connects. `deadline` limits the time that the store sends nothing; `/dev/xen/xenbus` has no such limit.
    ///
    /// Errors: [`Error::Unreachable`].
    pub fn connect(endpoint: &Endpoint, deadline: Duration) -> Result<Self, Error> {
        let file = open(endpoint, deadline).map_err(|source| Error::Unreachable {
            endpoint: endpoint.clone(),
            source: Arc::new(source),
        })?;
        Ok(Self {
            file,
            is_device: matches!(endpoint, Endpoint::Device(_)),
            deadline,
            is_broken: false,
            number: 0,
            buffer: Vec::new(),
        })
    }

    /// Runs `f` in a transaction, and again as long as changes of others conflict with it.
    ///
    /// If `f` fails, the transaction is aborted and the error returned. Errors: [`Error::Conflict`] when `retry` is used
    /// up, and those of `f` and the store.
    pub fn transaction<T, E: From<Error>>(
        &mut self,
        retry: &Backoff,
        mut f: impl FnMut(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempts = retry.attempts();
        loop {
            let Reply::Transaction(number) = self.request(0, &Request::TransactionStart)? else {
                return Err(Error::Protocol("a transaction without a number".to_owned()).into());
            };
            let done = f(&mut Transaction { client: self, number });
            let commit = done.is_ok();
            let ended = self.request(number, &Request::TransactionEnd { commit });
            // The error of `f` matters more than that of the abort.
            let done = done?;
            match ended {
                Ok(_) => return Ok(done),
                Err(error) if error.is_conflict() => thread::sleep(attempts.next()?),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn request(&mut self, transaction: u32, request: &Request) -> Result<Reply, Error> {
        if self.is_broken {
            return Err(Error::Disconnected);
        }
        let reply = self.exchange(transaction, request);
        self.is_broken = matches!(reply, Err(Error::Disconnected | Error::Timeout(_) | Error::Protocol(_)));
        reply
    }

    fn exchange(&mut self, transaction: u32, request: &Request) -> Result<Reply, Error> {
        request.check_size()?;
        self.number += 1;
        let mut message = Vec::new();
        append_frame(&mut message, request.kind() as u32, self.number, transaction, |to| {
            request.fill(to);
        });
        if let Err(error) = self.file.write_all(&message) {
            // A write on the device fails with the error of a message that the kernel refuses.
            return Err(match error.raw_os_error().and_then(Errno::from_number) {
                Some(errno) if self.is_device => request.refused(errno),
                _ => self.broken(&error),
            });
        }
        loop {
            let arrived = first_frame(&self.buffer).map_err(|oversized| Error::Protocol(oversized.to_string()))?;
            let Some((frame, length)) = arrived else {
                self.receive()?;
                continue;
            };
            let payload = frame.payload.to_vec();
            let (kind, number) = (Kind::of(frame.kind), frame.request);
            self.buffer.drain(..length);
            match kind {
                // Only the type identifies an event: on the device its number is arbitrary.
                Some(Kind::WatchEvent) => {}
                Some(Kind::Error) if number == self.number => {
                    let errno = only_string(&payload).and_then(Errno::from_name);
                    // As in libxenstore, an unknown error is EINVAL.
                    return Err(request.refused(errno.unwrap_or(Errno::Invalid)));
                }
                Some(kind) if kind == request.kind() && number == self.number => return request.reply(payload),
                _ => return Err(Error::Protocol(format!("no reply to {}", request.kind().name()))),
            }
        }
    }

    fn receive(&mut self) -> Result<(), Error> {
        let mut bytes = [0; HEADER + PAYLOAD_MAX];
        match self.file.read(&mut bytes) {
            Ok(0) => Err(Error::Disconnected),
            Ok(read) => {
                self.buffer.extend_from_slice(&bytes[..read]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn broken(&self, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(self.deadline),
            _ => Error::Disconnected,
        }
    }
}

/// An open transaction.
#[derive(Debug)]
pub struct Transaction<'a> {
    client: &'a mut Client,
    number: u32,
}

impl Transaction<'_> {
    /// Reads the value of a node.
    pub fn read(&mut self, path: &Path) -> Result<Vec<u8>, Error> {
        self.client
            .request(self.number, &Request::Read(path.clone()))
            .map(Reply::into_value)
    }

    /// Sets the value of a node. Creates it and its missing ancestors.
    pub fn write(&mut self, path: &Path, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.client
            .request(self.number, &Request::Write(path.clone(), value.as_ref().to_vec()))
            .map(drop)
    }
}

fn open(endpoint: &Endpoint, deadline: Duration) -> io::Result<File> {
    match endpoint {
        Endpoint::Socket(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(deadline))?;
            stream.set_write_timeout(Some(deadline))?;
            Ok(OwnedFd::from(stream).into())
        }
        Endpoint::Device(path) => OpenOptions::new().read(true).write(true).open(path),
        #[cfg(feature = "server")]
        Endpoint::InProcess(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(all(test, feature = "async"))]
mod tests;
