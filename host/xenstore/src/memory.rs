//! Ways to a server in the same process, on which a simulation decides when each message arrives.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::wire::{HEADER, Kind, PAYLOAD_MAX, first_frame};

/// Bytes that are on their way in one direction at most: more than a window full of the longest messages.
const ROOM: usize = 64 * (HEADER + PAYLOAD_MAX);

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the store.
    Request,
    /// From the store, to a request.
    Reply,
    /// From the store, by itself.
    Event,
}

/// What becomes of a message. Those of one direction do not overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after so long, or later if one before it does.
    Arrives(Duration),
    /// So does it, and once more behind itself.
    Twice(Duration),
    /// It never arrives.
    Lost,
}

/// What decides how messages fare.
pub trait Road: Send + Sync {
    /// What becomes of the next message.
    fn fate(&self, message: Message) -> Fate;
}

/// A way to a server, as one domain: [`crate::Endpoint::Memory`]. Clones are the same way.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    serve: Box<dyn Fn(DuplexStream) + Send + Sync>,
    road: Option<Arc<dyn Road>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Who carries the messages of the connections that there were.
    carriers: Vec<AbortHandle>,
}

impl MemoryStore {
    /// A way to whatever `serve` makes of the other end of each connection: see [`crate::server::Server::place`].
    pub fn new(serve: impl Fn(DuplexStream) + Send + Sync + 'static, road: Option<Arc<dyn Road>>) -> Self {
        Self(Arc::new(Inner {
            serve: Box::new(serve),
            road,
            state: Mutex::default(),
        }))
    }

    /// Lets nobody connect any more, or everybody again.
    pub fn close(&self, closed: bool) {
        self.state().closed = closed;
    }

    /// Cuts every connection on a road, and loses what is on its way.
    pub fn cut(&self) {
        self.state().carriers.drain(..).for_each(|carrier| carrier.abort());
    }

    /// Connects, within a tokio runtime.
    ///
    /// Errors: nobody may connect now ([`MemoryStore::close`]).
    pub fn connect(&self) -> io::Result<DuplexStream> {
        let mut state = self.state();
        if state.closed {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (client, near) = tokio::io::duplex(ROOM);
        let Some(road) = &self.0.road else {
            (self.0.serve)(near);
            return Ok(client);
        };
        let (far, server) = tokio::io::duplex(ROOM);
        (self.0.serve)(server);
        state.carriers.retain(|carrier| !carrier.is_finished());
        let ((from_client, to_client), (from_server, to_server)) = (tokio::io::split(near), tokio::io::split(far));
        let road = Arc::clone(road);
        let carrier = tokio::spawn(async move {
            // When one direction has ended, so has the other.
            tokio::select! {
                biased;
                _ = carry(from_client, to_server, &*road, |_| Message::Request) => {}
                _ = carry(from_server, to_client, &*road, from_store) => {}
            }
        });
        state.carriers.push(carrier.abort_handle());
        Ok(client)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so a poisoned one is whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store in this process")
    }
}

impl PartialEq for MemoryStore {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for MemoryStore {}

fn from_store(kind: u32) -> Message {
    match Kind::of(kind) {
        Some(Kind::WatchEvent) => Message::Event,
        _ => Message::Reply,
    }
}

/// Carries messages in one direction until one end is closed.
async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    road: &dyn Road,
    what: impl Fn(u32) -> Message,
) -> io::Result<()> {
    let mut underway: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = Vec::new();
    let mut open = true;
    while open || !underway.is_empty() {
        let arrival = underway.front().map(|(at, _)| *at);
        tokio::select! {
            biased;
            () = sleep_until(arrival.unwrap_or_else(Instant::now)), if arrival.is_some() => {
                if let Some((_, message)) = underway.pop_front() {
                    to.write_all(&message).await?;
                }
            }
            read = from.read_buf(&mut buffer), if open => {
                open = read? > 0;
                let mut used = 0;
                while let Some((frame, length)) = first_frame(&buffer[used..]).map_err(io::Error::other)? {
                    let bytes = &buffer[used..used + length];
                    used += length;
                    let fate = road.fate(what(frame.kind));
                    tracing::trace!(
                        kind = Kind::of(frame.kind).map(Kind::name), request = frame.request,
                        payload = %frame.payload.escape_ascii(), ?fate, "a message"
                    );
                    let (after, copies) = match fate {
                        Fate::Arrives(after) => (after, 1),
                        Fate::Twice(after) => (after, 2),
                        Fate::Lost => continue,
                    };
                    let before = underway.back().map_or_else(Instant::now, |(at, _)| *at);
                    let at = before.max(Instant::now() + after);
                    underway.extend((0..copies).map(|_| (at, bytes.to_vec())));
                }
                buffer.drain(..used);
            }
        }
    }
    Ok(())
}
