//! Transport to a server in the same process, on which a policy decides when each message arrives.

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
use xenplug_xenstore::{
    Endpoint, InProcess,
    protocol::{Kind, STREAM_CAPACITY, first_frame},
};

/// Class of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// From the client.
    Request,
    /// From the store, to a request.
    Reply,
    /// From the store, by itself.
    Event,
}

/// Fate of a message. The messages of one direction do not overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after the delay, or with a later one before it.
    Arrives(Duration),
    /// It arrives twice in a row.
    Twice(Duration),
    /// It never arrives.
    Lost,
}

/// Policy that decides the fate of messages.
pub trait TransportPolicy: Send + Sync {
    /// Decides the fate of the next message.
    fn fate(&self, message: Message) -> Fate;
}

/// Transport to a server, as one domain. Clones share their state.
#[derive(Clone)]
pub struct Transport(Arc<Inner>);

struct Inner {
    serve: Box<dyn Fn(DuplexStream) + Send + Sync>,
    policy: Option<Arc<dyn TransportPolicy>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// The tasks that carry the messages of each connection.
    carriers: Vec<AbortHandle>,
}

impl Transport {
    /// Creates a transport to whatever `serve` does with the far end of each connection.
    pub fn new(serve: impl Fn(DuplexStream) + Send + Sync + 'static, policy: Option<Arc<dyn TransportPolicy>>) -> Self {
        Self(Arc::new(Inner {
            serve: Box::new(serve),
            policy,
            state: Mutex::default(),
        }))
    }

    /// Returns the endpoint that a client connects to.
    pub fn endpoint(&self) -> Endpoint {
        let transport = self.clone();
        Endpoint::InProcess(InProcess::new(move || transport.connect()))
    }

    /// Refuses new connections, or allows them again.
    pub fn close(&self, closed: bool) {
        self.state().closed = closed;
    }

    /// Cuts every connection that has a policy, and loses the messages on their way.
    pub fn cut(&self) {
        self.state().carriers.drain(..).for_each(|carrier| carrier.abort());
    }

    /// Connects, within a tokio runtime.
    ///
    /// Errors: `ConnectionRefused` after [`Transport::close`].
    pub fn connect(&self) -> io::Result<DuplexStream> {
        let mut state = self.state();
        if state.closed {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (client, near) = tokio::io::duplex(STREAM_CAPACITY);
        let Some(policy) = &self.0.policy else {
            (self.0.serve)(near);
            return Ok(client);
        };
        let (far, server) = tokio::io::duplex(STREAM_CAPACITY);
        (self.0.serve)(server);
        state.carriers.retain(|carrier| !carrier.is_finished());
        let ((from_client, to_client), (from_server, to_server)) = (tokio::io::split(near), tokio::io::split(far));
        let policy = Arc::clone(policy);
        let carrier = tokio::spawn(async move {
            // When one direction has ended, so has the other.
            tokio::select! {
                biased;
                _ = carry(from_client, to_server, &*policy, |_| Message::Request) => {}
                _ = carry(from_server, to_client, &*policy, from_store) => {}
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

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

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
    policy: &dyn TransportPolicy,
    message_of: impl Fn(u32) -> Message,
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
                    let fate = policy.fate(message_of(frame.kind));
                    tracing::trace!(
                        kind = Kind::of(frame.kind).map(Kind::name), request = frame.request,
                        payload = %frame.payload.escape_ascii(), ?fate, "store message"
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
