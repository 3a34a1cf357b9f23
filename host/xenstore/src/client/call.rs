//! One or more requests of one caller, and the replies as they come.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::sync::OwnedSemaphorePermit;

use super::transaction::Id;
use crate::{
    Errno, Error, Reply, Request,
    wire::{decimal, only_string},
};

/// What becomes of the replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A caller waits for them.
    Answer,
    /// They tell whether this watch was set again on a new connection.
    SetAgain(u64),
    /// Nothing.
    None,
}

/// One or more requests of one caller. Shared between the caller, the queue and the window of the connection.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) requests: Vec<Request>,
    pub(super) within: Option<Id>,
    pub(super) purpose: Purpose,
    progress: Mutex<Progress>,
}

type Answer = Result<Vec<u8>, Errno>;

#[derive(Debug, Default)]
struct Progress {
    answers: Vec<Option<Answer>>,
    missing: usize,
    failure: Option<Error>,
    abandoned: bool,
    waker: Option<Waker>,
    /// Held until the transaction that the call begins or ends is known to be open or gone.
    permit: Option<OwnedSemaphorePermit>,
}

/// What to do once an answer has been put in.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Whom to wake.
    pub(super) waker: Option<Waker>,
    /// A transaction was begun for a caller that no longer waits: it has to be aborted.
    pub(super) orphan: Option<(u32, Option<OwnedSemaphorePermit>)>,
}

impl Call {
    /// Errors: [`Error::TooLarge`].
    pub(super) fn new(requests: Vec<Request>, within: Option<Id>, purpose: Purpose) -> Result<Arc<Self>, Error> {
        requests.iter().try_for_each(Request::check_size)?;
        let progress = Progress {
            answers: requests.iter().map(|_| None).collect(),
            missing: requests.len(),
            ..Progress::default()
        };
        Ok(Arc::new(Self {
            requests,
            within,
            purpose,
            progress: Mutex::new(progress),
        }))
    }

    /// Puts in the answer to one of the requests.
    pub(super) fn answer(&self, index: usize, answer: Answer) -> Settled {
        let mut progress = self.progress();
        let Some(place @ None) = progress.answers.get_mut(index) else {
            return Settled::default();
        };
        *place = Some(answer);
        progress.missing -= 1;
        if progress.abandoned {
            let orphan = self.begun(&progress.answers[index..=index], index);
            return Settled {
                waker: None,
                orphan: orphan.map(|id| (id, progress.permit.take())),
            };
        }
        let waker = if progress.missing == 0 {
            progress.waker.take()
        } else {
            None
        };
        Settled { waker, orphan: None }
    }

    /// Ends the call without more answers.
    pub(super) fn fail(&self, error: Error) -> Option<Waker> {
        let mut progress = self.progress();
        progress.failure = Some(error);
        progress.waker.take()
    }

    /// Whether the answer to the first request is there, and is a refusal.
    pub(super) fn refusal(&self) -> Option<Errno> {
        match self.progress().answers.first() {
            Some(Some(Err(errno))) => Some(*errno),
            _ => None,
        }
    }

    /// Keeps a permit for as long as it is not known what became of the transaction that the call begins or ends.
    pub(super) fn hold(&self, permit: Option<OwnedSemaphorePermit>) {
        self.progress().permit = permit;
    }

    /// Gives the permit to whom the transaction belongs from now on.
    pub(super) fn take_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.progress().permit.take()
    }

    /// The transaction that one of these answers has begun.
    fn begun(&self, answers: &[Option<Answer>], offset: usize) -> Option<u32> {
        answers
            .iter()
            .zip(&self.requests[offset..])
            .find_map(|(answer, request)| match (request, answer) {
                (Request::TransactionStart, Some(Ok(payload))) => only_string(payload).and_then(decimal),
                _ => None,
            })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The replies to all requests of a call. If it is dropped before they are there, they are ignored.
pub(super) struct Answers<'a> {
    pub(super) call: &'a Call,
    /// Aborts a transaction that was begun in vain.
    pub(super) abort: &'a (dyn Fn(u32, Option<OwnedSemaphorePermit>) + Sync),
    pub(super) done: bool,
}

impl Future for Answers<'_> {
    type Output = Result<Vec<Result<Reply, Error>>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.call;
        let mut progress = call.progress();
        if progress.missing > 0 && progress.failure.is_none() {
            if !progress
                .waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(context.waker()))
            {
                progress.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        self.done = true;
        // A call whose last answer came just before the connection was lost has succeeded.
        if progress.missing > 0
            && let Some(error) = progress.failure.take()
        {
            return Poll::Ready(Err(error));
        }
        let answers = std::mem::take(&mut progress.answers);
        drop(progress);
        let replies = call.requests.iter().zip(answers).map(|(request, answer)| match answer {
            Some(Ok(payload)) => request.reply(payload),
            Some(Err(errno)) => Err(request.refused(errno)),
            None => Err(Error::Disconnected),
        });
        Poll::Ready(Ok(replies.collect()))
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut progress = self.call.progress();
        progress.abandoned = true;
        progress.waker = None;
        let orphan = self.call.begun(&progress.answers, 0);
        let permit = if orphan.is_some() { progress.permit.take() } else { None };
        drop(progress);
        if let Some(id) = orphan {
            (self.abort)(id, permit);
        }
    }
}
