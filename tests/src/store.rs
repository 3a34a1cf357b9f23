//! Synchronous xenstore client over a Unix socket, for players, the floor program and the benchmark.
//!
//! One request is pending at a time. Watch events that arrive meanwhile are queued in their order. The protocol is that
//! of Xen's docs/misc/xenstore.txt and xen/include/public/io/xs_wire.h.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Failure of a store request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke, or xenstored sent an invalid message.
    #[error("the connection to xenstored: {0}")]
    Connection(#[from] io::Error),
    /// xenstored refused.
    #[error("{operation} {path}: {name}")]
    Refused {
        /// Request.
        operation: Operation,
        /// Node (or domain) of the request.
        path: String,
        /// xenstored's name for the error, such as `ENOENT`.
        name: String,
    },
}

impl Error {
    /// Returns true if xenstored refused with this error, such as `ENOENT`.
    pub fn is(&self, error: &str) -> bool {
        matches!(self, Error::Refused { name, .. } if name == error)
    }
}

/// Request types by their number on the wire (`enum xsd_sockmsg_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Operation {
    Control = 0,
    Directory = 1,
    Read = 2,
    GetPerms = 3,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    Introduce = 8,
    Release = 9,
    Write = 11,
    Mkdir = 12,
    Rm = 13,
    SetPerms = 14,
    IsDomainIntroduced = 17,
    DirectoryPart = 22,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;
/// `XENSTORE_PAYLOAD_MAX`.
const PAYLOAD_MAX: usize = 4096;

/// Watch event: the node may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Node, as the watch named it (relative or absolute), or a special one such as `@releaseDomain`.
    pub path: String,
    /// Token of the watch.
    pub token: String,
}

/// Connection to a store, as dom0.
#[derive(Debug)]
pub struct Store {
    socket: UnixStream,
    transaction: u32,
    events: VecDeque<Event>,
    frame: Vec<u8>,
}

impl Store {
    /// Connects to the store's socket.
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        let socket = UnixStream::connect(socket)?;
        Ok(Self {
            socket,
            transaction: 0,
            events: VecDeque::new(),
            frame: Vec::with_capacity(PAYLOAD_MAX + 16),
        })
    }

    /// Reads the value of a node, with invalid UTF-8 replaced.
    pub fn read(&mut self, path: &str) -> Result<String, Error> {
        let value = self.request(Operation::Read, &[path.as_bytes(), b"\0"], path)?;
        Ok(String::from_utf8_lossy(&value).into_owned())
    }

    /// Sends a control command, such as `memreport` (docs/misc/xenstore.txt, `CONTROL`), and returns its answer.
    pub fn control(&mut self, words: &[&str]) -> Result<String, Error> {
        let body: Vec<&[u8]> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"]).collect();
        let answer = self.request(Operation::Control, &body, words.first().unwrap_or(&""))?;
        Ok(String::from_utf8_lossy(&answer).trim_end_matches('\0').to_owned())
    }

    /// Reads the value of a node, or returns `None` if there is no such node.
    pub fn find(&mut self, path: &str) -> Result<Option<String>, Error> {
        match self.read(path) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is("ENOENT") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a node, and creates it and its parents where they are missing.
    pub fn write(&mut self, path: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.request(Operation::Write, &[path.as_bytes(), b"\0", value.as_ref()], path)
            .map(drop)
    }

    /// Creates a node with an empty value.
    pub fn make(&mut self, path: &str) -> Result<(), Error> {
        self.request(Operation::Mkdir, &[path.as_bytes(), b"\0"], path)
            .map(drop)
    }

    /// Removes a node and all below it. An absent node is no error.
    pub fn remove(&mut self, path: &str) -> Result<(), Error> {
        match self.request(Operation::Rm, &[path.as_bytes(), b"\0"], path) {
            Err(error) if !error.is("ENOENT") => Err(error),
            _ => Ok(()),
        }
    }

    /// Lists the names of a node's children; none if the node is absent.
    pub fn children(&mut self, path: &str) -> Result<Vec<String>, Error> {
        let names = match self.request(Operation::Directory, &[path.as_bytes(), b"\0"], path) {
            Ok(names) => names,
            Err(error) if error.is("ENOENT") => return Ok(Vec::new()),
            Err(error) if error.is("E2BIG") => self.children_by_part(path)?,
            Err(error) => return Err(error),
        };
        Ok(strings(&names))
    }

    /// Lists the children of a node in parts, because they do not fit into one reply. Each part starts with the node's
    /// generation, and an empty part is the last. If the list changes between two parts, it is read again.
    fn children_by_part(&mut self, path: &str) -> Result<Vec<u8>, Error> {
        'again: loop {
            let (mut names, mut generation) = (Vec::new(), None);
            loop {
                let offset = names.len().to_string();
                let body = [path.as_bytes(), b"\0", offset.as_bytes(), b"\0"];
                let part = self.request(Operation::DirectoryPart, &body, path)?;
                let end = part.iter().position(|byte| *byte == 0).unwrap_or(part.len());
                if *generation.get_or_insert_with(|| part[..end].to_vec()) != part[..end] {
                    continue 'again;
                }
                let part = part.get(end + 1..).unwrap_or_default();
                names.extend_from_slice(part);
                if part.is_empty() || part == b"\0" || part.ends_with(b"\0\0") {
                    return Ok(names);
                }
            }
        }
    }

    /// Reads all nodes at and below a path.
    pub fn tree(&mut self, path: &str) -> Result<BTreeMap<String, String>, Error> {
        let mut nodes = BTreeMap::new();
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            let Some(value) = self.find(&path)? else { continue };
            open.extend(
                self.children(&path)?
                    .iter()
                    .map(|name| format!("{}/{name}", path.trim_end_matches('/'))),
            );
            nodes.insert(path, value);
        }
        Ok(nodes)
    }

    /// Reads the permissions of a node, such as `n0`, `r3`; the first names the owner.
    pub fn permissions(&mut self, path: &str) -> Result<Vec<String>, Error> {
        Ok(strings(&self.request(
            Operation::GetPerms,
            &[path.as_bytes(), b"\0"],
            path,
        )?))
    }

    /// Sets the permissions of a node.
    pub fn permit(&mut self, path: &str, permissions: &[String]) -> Result<(), Error> {
        let mut body: Vec<&[u8]> = vec![path.as_bytes(), b"\0"];
        body.extend(permissions.iter().flat_map(|one| [one.as_bytes(), b"\0"]));
        self.request(Operation::SetPerms, &body, path).map(drop)
    }

    /// Runs a transaction, and retries it when another client's change conflicts.
    ///
    /// xenstored reports a conflict at the end (`EAGAIN`), or before: the removal of nodes of which another client has
    /// removed some since fails with `EIO` or `EINVAL`. libxl ignores that error, and gets `EAGAIN` at the end.
    pub fn transaction<T>(&mut self, mut body: impl FnMut(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        loop {
            self.begin()?;
            let result = body(self);
            let before_the_end = |error: &Error| error.is("EIO") || error.is("EINVAL");
            let commit = result.as_ref().map_or_else(before_the_end, |_| true);
            match (self.end(commit), result) {
                (Err(error), _) if commit && error.is("EAGAIN") => continue,
                (Err(error), Ok(_)) => return Err(error),
                (_, result) => return result,
            }
        }
    }

    /// Starts a transaction that all requests but watches belong to until [`Store::end`].
    pub fn begin(&mut self) -> Result<(), Error> {
        let id = self.request(Operation::TransactionStart, &[b"\0"], "")?;
        let id = String::from_utf8_lossy(&id);
        self.transaction = id.trim_end_matches('\0').parse().map_err(io::Error::other)?;
        Ok(())
    }

    /// Ends the transaction; `EAGAIN` if it conflicted.
    pub fn end(&mut self, commit: bool) -> Result<(), Error> {
        let done = self.request(Operation::TransactionEnd, &[if commit { b"T\0" } else { b"F\0" }], "");
        self.transaction = 0;
        done.map(drop)
    }

    /// Watches a node and all below it. The first event comes at once.
    pub fn watch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        self.request(
            Operation::Watch,
            &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"],
            path,
        )
        .map(drop)
    }

    /// Ends a watch. Events of it that are already queued stay.
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        self.request(
            Operation::Unwatch,
            &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"],
            path,
        )
        .map(drop)
    }

    /// Returns the next event of any watch, or `None` if there is none within the time.
    pub fn event(&mut self, within: Duration) -> Result<Option<Event>, Error> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        let until = Instant::now() + within;
        while self.readable(until.saturating_duration_since(Instant::now()))? {
            let kind = self.receive()?;
            if kind != WATCH_EVENT {
                return Err(io::Error::other(format!("a reply of type {kind} to no request")).into());
            }
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Waits, by a watch of its own, until a node satisfies a condition, and returns the last value either way:
    /// `Ok` if it did in time.
    pub fn wait(
        &mut self,
        path: &str,
        within: Duration,
        accepts: impl Fn(Option<&str>) -> bool,
    ) -> Result<Result<Option<String>, Option<String>>, Error> {
        let until = Instant::now() + within;
        let token = format!("wait:{path}");
        self.watch(path, &token)?;
        let outcome = loop {
            let value = self.find(path)?;
            if accepts(value.as_deref()) {
                break Ok(value);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Err(value);
            }
            self.event(left)?;
        };
        self.unwatch(path, &token)?;
        Ok(outcome)
    }

    /// Introduces a domain, as a toolstack does when it has built one.
    pub fn introduce(&mut self, domid: u16) -> Result<(), Error> {
        let domid = domid.to_string();
        self.request(Operation::Introduce, &[domid.as_bytes(), b"\0", b"1\0", b"1\0"], &domid)
            .map(drop)
    }

    /// Releases a domain.
    pub fn release(&mut self, domid: u16) -> Result<(), Error> {
        let domid = domid.to_string();
        self.request(Operation::Release, &[domid.as_bytes(), b"\0"], &domid)
            .map(drop)
    }

    /// Returns true if a domain is introduced.
    pub fn is_introduced(&mut self, domid: u16) -> Result<bool, Error> {
        let domid = domid.to_string();
        let answer = self.request(Operation::IsDomainIntroduced, &[domid.as_bytes(), b"\0"], &domid)?;
        Ok(answer.starts_with(b"T"))
    }

    /// Sends a request and returns the payload of its reply.
    fn request(&mut self, operation: Operation, body: &[&[u8]], path: &str) -> Result<Vec<u8>, Error> {
        let length: usize = body.iter().map(|part| part.len()).sum();
        let transaction = if matches!(operation, Operation::Watch | Operation::Unwatch) {
            0
        } else {
            self.transaction
        };
        self.frame.clear();
        for word in [operation as u32, 0, transaction, length as u32] {
            self.frame.extend_from_slice(&word.to_ne_bytes());
        }
        body.iter().for_each(|part| self.frame.extend_from_slice(part));
        self.socket.write_all(&self.frame)?;
        loop {
            match self.receive()? {
                WATCH_EVENT => {}
                ERROR => {
                    let name = String::from_utf8_lossy(&self.frame).trim_end_matches('\0').to_owned();
                    return Err(Error::Refused {
                        operation,
                        path: path.to_owned(),
                        name,
                    });
                }
                kind if kind == operation as u32 => return Ok(self.frame.clone()),
                kind => return Err(io::Error::other(format!("a reply of type {kind} to {operation}")).into()),
            }
        }
    }

    /// Receives one message and returns its type. The payload is in `frame`, or among the events.
    fn receive(&mut self) -> Result<u32, Error> {
        let mut header = [0; 16];
        self.socket.read_exact(&mut header)?;
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (kind, length) = (word(0), word(12) as usize);
        if length > PAYLOAD_MAX {
            return Err(io::Error::other(format!("a message of {length} bytes")).into());
        }
        self.frame.resize(length, 0);
        self.socket.read_exact(&mut self.frame)?;
        if kind == WATCH_EVENT {
            let mut fields = strings(&self.frame).into_iter();
            let (path, token) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            self.events.push_back(Event { path, token });
        }
        Ok(kind)
    }

    fn readable(&self, within: Duration) -> Result<bool, Error> {
        let mut descriptors = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        let within = Timespec::try_from(within).map_err(io::Error::other)?;
        match poll(&mut descriptors, Some(&within)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => self.readable(Duration::ZERO),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

/// Splits texts that end with NUL.
fn strings(bytes: &[u8]) -> Vec<String> {
    bytes
        .split(|byte| *byte == 0)
        .filter(|text| !text.is_empty())
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect()
}
