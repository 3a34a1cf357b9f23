//! Watches: events for changes below a path.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    inbox::{Event, Inbox},
    session::Session,
};
use crate::{Error, Path, Request};

/// A watch. Dropping it removes it.
#[derive(Debug)]
pub struct Watch {
    session: Session,
    token: u64,
    inbox: Arc<Inbox>,
}

impl Watch {
    /// Returns the watched path.
    pub fn path(&self) -> &Path {
        self.inbox.path()
    }

    /// Waits for the next event. `None` if the store refused to set the watch again on a new connection. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// Polls for the next event.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.inbox.poll(context)
    }

    /// Takes the next event if one is queued.
    pub fn try_next(&mut self) -> Option<Event> {
        self.inbox.try_next()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.session.connection().remove_watch(self.token);
    }
}

/// Sets a watch.
pub(super) async fn set(session: &Session, path: &Path) -> Result<Watch, Error> {
    let (token, inbox) = session.connection().add_watch(path);
    // From here on dropping removes it, also if the store refuses it or this future is cancelled.
    let watch = Watch {
        session: session.clone(),
        token,
        inbox,
    };
    match session.request(Request::Watch(path.clone(), token), None).await {
        Ok(_) => Ok(watch),
        Err(error) => {
            // After another error the store may have the watch, or get it again on a new connection.
            if error.errno().is_some() {
                session.connection().forget_watch(token);
            }
            Err(error)
        }
    }
}
