//! Session: the connection and the permits for transactions, shared by a client, its watches and its transactions.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
};

use super::{
    call::{Call, Purpose, TransactionId},
    connection::{self, Connection, Replies},
    options::Options,
    transport::{Incoming, Outgoing},
};
use crate::{Attempts, Backoff, Endpoint, Error, Reply, Request};

/// Number of transactions that one client has open at a time: an unprivileged domain may have 10
/// (tools/xenstored/core.c, `quota_max_transaction`).
const TRANSACTIONS: usize = 8;

/// Session. Clones share the connection; it is closed with the last of them.
#[derive(Clone, Debug)]
pub(super) struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Arc<Connection>,
    transactions: Arc<Semaphore>,
    task: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
        self.connection.disconnect(None);
    }
}

impl Session {
    /// Starts on an open connection.
    pub(super) fn start((incoming, outgoing): (Incoming, Outgoing), endpoint: Endpoint, options: Options) -> Self {
        let connection = Arc::new(Connection::new(endpoint, options));
        let epoch = connection.install(outgoing);
        let task = tokio::spawn(connection::run(connection.clone(), incoming, epoch)).abort_handle();
        Self(Arc::new(Inner {
            connection,
            transactions: Arc::new(Semaphore::new(TRANSACTIONS)),
            task,
        }))
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Waits until one more transaction may be open.
    pub(super) async fn transaction_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permits = self.0.transactions.clone();
        permits.acquire_owned().await.map_err(|_| Error::Disconnected)
    }

    /// Sends requests, and waits for all replies.
    pub(super) async fn requests(
        &self,
        requests: Vec<Request>,
        within: Option<TransactionId>,
    ) -> Result<Replies, Error> {
        let call = Call::new(requests, within, Purpose::Answer)?;
        self.0.connection.ask(call).await
    }

    /// Sends one request, and waits for its reply.
    pub(super) async fn request(&self, request: Request, within: Option<TransactionId>) -> Result<Reply, Error> {
        let reply = self.requests(vec![request], within).await?.pop();
        reply.unwrap_or(Err(Error::Disconnected))
    }

    /// Starts to count attempts, with the randomness that the options name.
    pub(super) fn attempts<'a>(&self, retry: &'a Backoff) -> Attempts<'a> {
        retry.attempts_by(self.0.connection.chance())
    }
}
