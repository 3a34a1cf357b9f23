//! Outbox: messages to one client that wait to be sent.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use xenplug_xenstore::protocol::{Kind, append_frame};

/// Size in bytes at which the connection of a client that does not read is closed.
const LIMIT: usize = 16 << 20;

/// Size in bytes above which the server takes no more requests of the client.
const FULL: usize = 256 << 10;

/// Messages to one client that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Notifies the writer of messages, or of the end of the connection.
    pub(crate) news: Notify,
    /// Notifies the reader that everything is sent.
    pub(crate) drained: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Payloads of the events among them.
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

    /// Queues an event, unless the same is queued already. A special event is queued each time.
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

    /// Takes all messages. `None` once the connection is closed.
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
