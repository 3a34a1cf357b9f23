//! Calls: the requests of one caller, and their replies as they arrive.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Errno, Error, Reply, Request,
    wire::{decimal, only_string},
};

/// Number of a transaction, and the connection that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TransactionId {
    pub(super) number: u32,
    pub(super) epoch: u64,
}

/// Use of the replies to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A caller waits for them.
    Answer,
    /// They show whether the store took this watch again on a new connection.
    SetAgain(u64),
    /// They are ignored.
    None,
}

/// Requests of one caller, shared between the caller, the queue and the window of the connection.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) requests: Vec<Request>,
    pub(super) within: Option<TransactionId>,
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

/// Work left to do outside of the lock after an answer.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The caller, if this was its last answer.
    pub(super) waker: Option<Waker>,
    /// Transaction that was begun for a caller that no longer waits, to be aborted.
    pub(super) orphan: Option<(u32, Option<OwnedSemaphorePermit>)>,
}

impl Call {
    /// Errors: [`Error::TooLarge`].
    pub(super) fn new(
        requests: Vec<Request>,
        within: Option<TransactionId>,
        purpose: Purpose,
    ) -> Result<Arc<Self>, Error> {
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

    /// Stores the answer to one of the requests.
    pub(super) fn answer(&self, index: usize, answer: Answer) -> Settled {
        let mut progress = self.progress();
        let Some(slot @ None) = progress.answers.get_mut(index) else {
            return Settled::default();
        };
        *slot = Some(answer);
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

    /// Returns the error of the first request, if the store has refused it.
    pub(super) fn refusal(&self) -> Option<Errno> {
        match self.progress().answers.first() {
            Some(Some(Err(errno))) => Some(*errno),
            _ => None,
        }
    }

    /// Keeps the permit until the transaction that the call begins or ends is known to be open or gone.
    pub(super) fn hold(&self, permit: Option<OwnedSemaphorePermit>) {
        self.progress().permit = permit;
    }

    /// Takes the permit, for the owner of the open transaction.
    pub(super) fn take_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.progress().permit.take()
    }

    /// Returns the transaction that one of these answers has begun.
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

/// Future of the replies to all requests of a call. Dropping it early ignores them.
pub(super) struct Answers<'a> {
    pub(super) call: &'a Call,
    /// Aborts a transaction that no caller will use.
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
