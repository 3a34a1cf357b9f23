//! Transactions: requests that take effect together or not at all.

use tokio::sync::OwnedSemaphorePermit;

use super::{
    call::{Call, Purpose, TransactionId},
    connection::Replies,
    directory, nodes,
    session::Session,
};
use crate::{Error, Path, Permission, Reply, Request};

/// A transaction. Its commit fails unless others have left unchanged all that it read; its writes take effect then.
///
/// Dropping it aborts it, without waiting. It ends with its connection: its requests then fail with
/// [`Error::Disconnected`], also on the next connection.
#[derive(Debug)]
pub struct Transaction {
    session: Session,
    id: TransactionId,
    /// `None` once its end is sent.
    permit: Option<OwnedSemaphorePermit>,
}

nodes::about_nodes!(Transaction);

impl Transaction {
    /// Sends many requests at once, as [`Client::batch`](super::Client::batch) does, within the transaction.
    pub async fn batch(&self, requests: Vec<Request>) -> Result<Vec<Result<Reply, Error>>, Error> {
        self.session.requests(requests, Some(self.id)).await
    }

    /// Commits. `EAGAIN` if others have changed nodes that the transaction read or wrote.
    pub async fn commit(self) -> Result<(), Error> {
        self.commit_after(Vec::new()).await?.1
    }

    /// Sends many requests and the commit, in one round trip: the replies, and the result of the commit. The commit is tried
    /// even if a request fails.
    pub async fn commit_after(
        mut self,
        mut requests: Vec<Request>,
    ) -> Result<(Vec<Result<Reply, Error>>, Result<(), Error>), Error> {
        requests.push(Request::TransactionEnd { commit: true });
        // If a request is too large, nothing is sent, and the transaction is aborted as it is dropped.
        let call = Call::new(requests, Some(self.id), Purpose::Answer)?;
        call.hold(self.permit.take());
        let mut replies = self.session.connection().ask(call).await?;
        let end = replies.pop().unwrap_or(Err(Error::Disconnected));
        Ok((replies, end.map(drop)))
    }

    /// Aborts, and waits until the store has done so.
    pub async fn abort(mut self) -> Result<(), Error> {
        let call = Call::new(
            vec![Request::TransactionEnd { commit: false }],
            Some(self.id),
            Purpose::Answer,
        )?;
        call.hold(self.permit.take());
        self.session
            .connection()
            .ask(call)
            .await?
            .pop()
            .unwrap_or(Err(Error::Disconnected))
            .map(drop)
    }

    /// Returns whether the store has forgotten the transaction, so that no node exists in it: this domain was suspended
    /// meanwhile, and another xenstored serves it (drivers/xen/xenbus/xenbus_dev_frontend.c, `xenbus_write_transaction`).
    pub(super) async fn is_lost(&self) -> bool {
        let root = self.ask(Request::Read(Path::root())).await;
        root.is_err_and(|error| error.is_not_found())
    }

    fn scope(&self) -> (&Session, Option<TransactionId>) {
        (&self.session, Some(self.id))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.session.connection().abort(self.id, Some(permit));
        }
    }
}

/// Begins a transaction, and sends requests outside of it in the same round trip.
pub(super) async fn begin(session: &Session, besides: Vec<Request>) -> Result<(Transaction, Replies), Error> {
    let permit = session.transaction_permit().await?;
    let mut requests = besides;
    requests.push(Request::TransactionStart);
    let call = Call::new(requests, None, Purpose::Answer)?;
    call.hold(Some(permit));
    let (epoch, mut replies) = session.connection().ask_on(call.clone()).await?;
    match replies.pop() {
        Some(Ok(Reply::Transaction(number))) => {
            let transaction = Transaction {
                session: session.clone(),
                id: TransactionId { number, epoch },
                permit: call.take_permit(),
            };
            Ok((transaction, replies))
        }
        Some(Err(error)) => Err(error),
        _ => Err(Error::Disconnected),
    }
}
