//! Transactions: several requests that take effect together or not at all.

use tokio::sync::OwnedSemaphorePermit;

use super::{
    Client,
    call::{Call, Purpose},
    connection::Replies,
    directory, nodes,
};
use crate::{Error, Path, Permission, Reply, Request};

/// Which transaction, of which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) number: u32,
    pub(super) epoch: u64,
}

/// A transaction: what is read is what others have left unchanged until the commit, what is written takes effect then.
///
/// Dropping it aborts it, without waiting for that. When the connection is lost, so is the transaction: its requests
/// fail with [`Error::Disconnected`], also on the next connection.
#[derive(Debug)]
pub struct Transaction {
    client: Client,
    id: Id,
    /// `None` once its end is on the way.
    permit: Option<OwnedSemaphorePermit>,
}

nodes::about_nodes!(Transaction);

impl Transaction {
    /// Makes many requests at once, as [`Client::batch`] does, within the transaction.
    pub async fn batch(&self, requests: Vec<Request>) -> Result<Vec<Result<Reply, Error>>, Error> {
        self.client.call(requests, Some(self.id)).await
    }

    /// Makes the changes take effect. `EAGAIN` if others changed meanwhile what was read or written here.
    pub async fn commit(self) -> Result<(), Error> {
        self.commit_after(Vec::new()).await?.1
    }

    /// Makes many requests and commits, in one round trip: the replies, and what became of the commit. It is tried even
    /// if one of the requests fails, so this is for requests that may fail, or cannot.
    pub async fn commit_after(
        mut self,
        mut requests: Vec<Request>,
    ) -> Result<(Vec<Result<Reply, Error>>, Result<(), Error>), Error> {
        requests.push(Request::TransactionEnd { commit: true });
        // What was said too large is not sent, and the transaction aborted.
        let call = Call::new(requests, Some(self.id), Purpose::Answer)?;
        call.hold(self.permit.take());
        let mut replies = self.client.0.connection.ask(call).await?;
        let end = replies.pop().unwrap_or(Err(Error::Disconnected));
        Ok((replies, end.map(drop)))
    }

    /// Gives it up, and waits until that is done.
    pub async fn abort(mut self) -> Result<(), Error> {
        let call = Call::new(
            vec![Request::TransactionEnd { commit: false }],
            Some(self.id),
            Purpose::Answer,
        )?;
        call.hold(self.permit.take());
        self.client
            .0
            .connection
            .ask(call)
            .await?
            .pop()
            .unwrap_or(Err(Error::Disconnected))
            .map(drop)
    }

    /// Whether the store does not know it, to which nothing exists there: this domain was suspended since it began, and is
    /// served by another xenstored (drivers/xen/xenbus/xenbus_dev_frontend.c, `xenbus_write_transaction`).
    pub(super) async fn is_lost(&self) -> bool {
        let root = self.ask(Request::Read(Path::root())).await;
        root.is_err_and(|error| error.is_not_found())
    }

    fn scope(&self) -> (&Client, Option<Id>) {
        (&self.client, Some(self.id))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.client.0.connection.abort(self.id, Some(permit));
        }
    }
}

/// Begins a transaction, and makes requests outside of it in the same round trip.
pub(super) async fn begin(client: &Client, besides: Vec<Request>) -> Result<(Transaction, Replies), Error> {
    let permit = client
        .0
        .transactions
        .clone()
        .acquire_owned()
        .await
        .map_err(|_| Error::Disconnected)?;
    let mut requests = besides;
    requests.push(Request::TransactionStart);
    let call = Call::new(requests, None, Purpose::Answer)?;
    call.hold(Some(permit));
    let (epoch, mut replies) = client.0.connection.ask_on(call.clone()).await?;
    match replies.pop() {
        Some(Ok(Reply::Transaction(number))) => {
            let transaction = Transaction {
                client: client.clone(),
                id: Id { number, epoch },
                permit: call.take_permit(),
            };
            Ok((transaction, replies))
        }
        Some(Err(error)) => Err(error),
        _ => Err(Error::Disconnected),
    }
}
