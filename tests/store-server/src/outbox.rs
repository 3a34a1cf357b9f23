//! What waits to be sent to one client.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use xenplug_xenstore::protocol::{Kind, append_frame};

/// What may wait for a client that does not read, in bytes, before the connection is given up.
const LIMIT: usize = 16 << 20;

/// How much may wait before no more requests of the client are taken.
const FULL: usize = 256 << 10;

/// What waits to be sent to one client.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Tells the writer that something waits or that the connection is closed.
    pub(crate) news: Notify,
    /// Tells the reader that all was sent.
    pub(crate) drained: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// The payloads of the events among them.
    events: HashSet<Vec<u8>>,
    closed: bool,
}

impl Outbox {
    pub(crate) fn reply(&self, kind: u32, request: u32, transaction: u32, payload: &[u8]) {
        let mut waiting = self.waiting();
        append_frame(&mut waiting.bytes, kind, request, transaction, |to| {
            to.extend_from_slice(payload)
        });
        drop(waiting);
        self.news.notify_one();
    }

    /// Sends an event, unless the same waits already. A special one is sent each time.
    pub(crate) fn event(&self, path: &str, token: &[u8]) {
        let payload = [path.as_bytes(), b"\0", token, b"\0"].concat();
        let mut waiting = self.waiting();
        if !path.starts_with('@') && !waiting.events.insert(payload.clone()) {
            return;
        }
        append_frame(&mut waiting.bytes, Kind::WatchEvent as u32, 0, 0, |to| {
            to.extend_from_slice(&payload)
        });
        if waiting.bytes.len() > LIMIT {
            waiting.closed = true;
        }
        drop(waiting);
        self.news.notify_one();
    }

    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.news.notify_one();
        self.drained.notify_one();
    }

    /// All that waits; `None` once the connection is closed.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let mut waiting = self.waiting();
        waiting.events.clear();
        (!waiting.closed).then(|| std::mem::take(&mut waiting.bytes))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting().bytes.len() > FULL
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
