//! Watches: news of changes, in a bounded queue that nobody waits for.

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::Client;
use crate::{Error, Path, Request};

/// What a watch tells. Every event means "look again": changes may be told once for several, or once too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node has changed, or something that concerns it: created, written, removed, its permissions. Relative if the
    /// watch's path is.
    Changed(Path),
    /// Anything at or below the watch's path may have changed: the connection was made anew, or there were more changes
    /// than the queue holds.
    Resync,
}

/// A watch. Dropping it removes it.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    token: u64,
    inbox: Arc<Inbox>,
}

impl Watch {
    /// The path that is watched.
    pub fn path(&self) -> &Path {
        self.inbox.path()
    }

    /// The next event. `None` if the store refused to set the watch again on a new connection. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.inbox.poll(context)).await
    }

    /// The next event, if one waits.
    pub fn try_next(&mut self) -> Option<Event> {
        self.inbox.pending().take()
    }
}

impl futures_core::Stream for Watch {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.inbox.poll(context)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.client.0.connection.remove_watch(self.token);
    }
}

/// Sets a watch.
pub(super) async fn set(client: &Client, path: &Path) -> Result<Watch, Error> {
    let (token, inbox) = client.0.connection.add_watch(path);
    // From here on it is removed by being dropped, also if the store refuses it or this future is cancelled.
    let watch = Watch {
        client: client.clone(),
        token,
        inbox,
    };
    match client.ask(Request::Watch(path.clone(), token)).await {
        Ok(_) => Ok(watch),
        Err(error) => {
            // After another error the store may have it, or be given it again by a new connection.
            if error.errno().is_some() {
                client.0.connection.forget_watch(token);
            }
            Err(error)
        }
    }
}

/// The queue of a watch: filled by the connection, emptied by the watch.
#[derive(Debug)]
pub(super) struct Inbox {
    path: Path,
    limit: usize,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    order: VecDeque<Path>,
    waiting: HashSet<Path>,
    resync: bool,
    ended: bool,
    waker: Option<Waker>,
}

impl Inbox {
    pub(super) fn new(path: Path, limit: usize) -> Self {
        Self {
            path,
            limit,
            pending: Mutex::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Queues a change, unless the same waits already.
    pub(super) fn changed(&self, path: &str) -> Option<Waker> {
        let mut pending = self.pending();
        if pending.resync {
            return None;
        }
        // What is not a path says at least that something has changed.
        let path = path.parse().unwrap_or_else(|_| self.path.clone());
        if pending.waiting.contains(&path) {
            return None;
        }
        if pending.order.len() >= self.limit {
            drop(pending);
            return self.resync();
        }
        pending.waiting.insert(path.clone());
        pending.order.push_back(path);
        pending.waker.take()
    }

    /// Replaces what waits by one event that stands for all.
    pub(super) fn resync(&self) -> Option<Waker> {
        let mut pending = self.pending();
        pending.order.clear();
        pending.waiting.clear();
        pending.resync = true;
        pending.waker.take()
    }

    /// No more events.
    pub(super) fn end(&self) -> Option<Waker> {
        let mut pending = self.pending();
        pending.ended = true;
        pending.waker.take()
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut pending = self.pending();
        if let Some(event) = pending.take() {
            return Poll::Ready(Some(event));
        }
        if pending.ended {
            return Poll::Ready(None);
        }
        pending.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn take(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.resync) {
            return Some(Event::Resync);
        }
        let path = self.order.pop_front()?;
        self.waiting.remove(&path);
        Some(Event::Changed(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(limit: usize) -> Inbox {
        Inbox::new("/a".parse().unwrap(), limit)
    }

    fn events(inbox: &Inbox) -> Vec<Event> {
        std::iter::from_fn(|| inbox.pending().take()).collect()
    }

    fn changed(path: &str) -> Event {
        Event::Changed(path.parse().unwrap())
    }

    #[test]
    fn equal_changes_that_wait_are_told_once_and_again_after_they_were_taken() {
        let inbox = inbox(8);
        for path in ["/a/1", "/a/2", "/a/1", "/a/1"] {
            inbox.changed(path);
        }
        assert_eq!(events(&inbox), [changed("/a/1"), changed("/a/2")]);
        inbox.changed("/a/1");
        assert_eq!(events(&inbox), [changed("/a/1")]);
    }

    #[test]
    fn an_overflow_becomes_one_resync_that_stands_for_what_follows_too() {
        let inbox = inbox(3);
        for number in 0..1_000_000 {
            inbox.changed(&format!("/a/{number}"));
        }
        assert_eq!(events(&inbox), [Event::Resync]);
        inbox.changed("/a/1");
        assert_eq!(events(&inbox), [changed("/a/1")]);
    }

    #[test]
    fn an_event_without_a_proper_path_is_a_change_of_the_watched_node() {
        let inbox = inbox(3);
        inbox.changed("");
        inbox.changed("\u{7}");
        assert_eq!(events(&inbox), [changed("/a")]);
    }
}
