//! Queue of a watch's events: bounded, and never waited for.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::Path;

/// Event of a watch. It means "read again": the store may merge changes, or report one twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node was created, written or removed, or its permissions have changed. Relative if the watch's path is.
    Changed(Path),
    /// Any node at or below the watch's path may have changed: the connection was made again, or the queue overflowed.
    Resync,
}

/// Queue that the connection fills and the watch empties.
#[derive(Debug)]
pub(super) struct Inbox {
    path: Path,
    limit: usize,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    order: VecDeque<Path>,
    queued: HashSet<Path>,
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

    /// Queues a change, unless the same is queued already.
    pub(super) fn changed(&self, path: &str) -> Option<Waker> {
        let mut pending = self.pending();
        if pending.resync {
            return None;
        }
        // An invalid path still shows that something has changed.
        let path = path.parse().unwrap_or_else(|_| self.path.clone());
        if pending.queued.contains(&path) {
            return None;
        }
        if pending.order.len() >= self.limit {
            drop(pending);
            return self.resync();
        }
        pending.queued.insert(path.clone());
        pending.order.push_back(path);
        pending.waker.take()
    }

    /// Replaces all queued events with one [`Event::Resync`].
    pub(super) fn resync(&self) -> Option<Waker> {
        let mut pending = self.pending();
        pending.order.clear();
        pending.queued.clear();
        pending.resync = true;
        pending.waker.take()
    }

    /// Ends the watch after the queued events.
    pub(super) fn end(&self) -> Option<Waker> {
        let mut pending = self.pending();
        pending.ended = true;
        pending.waker.take()
    }

    /// Takes an event, or registers the waker. `None` after [`Inbox::end`].
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Event>> {
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

    /// Takes an event if one is queued.
    pub(super) fn try_next(&self) -> Option<Event> {
        self.pending().take()
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
        self.queued.remove(&path);
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
        std::iter::from_fn(|| inbox.try_next()).collect()
    }

    fn changed(path: &str) -> Event {
        Event::Changed(path.parse().unwrap())
    }

    #[test]
    fn queued_change_is_merged_until_it_is_taken() {
        let inbox = inbox(8);
        for path in ["/a/1", "/a/2", "/a/1", "/a/1"] {
            inbox.changed(path);
        }
        assert_eq!(events(&inbox), [changed("/a/1"), changed("/a/2")]);
        inbox.changed("/a/1");
        assert_eq!(events(&inbox), [changed("/a/1")]);
    }

    #[test]
    fn overflow_becomes_one_resync() {
        let inbox = inbox(3);
        for number in 0..1_000_000 {
            inbox.changed(&format!("/a/{number}"));
        }
        assert_eq!(events(&inbox), [Event::Resync]);
        inbox.changed("/a/1");
        assert_eq!(events(&inbox), [changed("/a/1")]);
    }

    #[test]
    fn event_with_invalid_path_changes_the_watched_node() {
        let inbox = inbox(3);
        inbox.changed("");
        inbox.changed("\u{7}");
        assert_eq!(events(&inbox), [changed("/a")]);
    }
}
