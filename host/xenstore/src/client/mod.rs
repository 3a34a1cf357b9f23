//! The client: requests, answers, and the life of the connection.

mod call;
mod connection;
mod directory;
mod nodes;
mod state;
mod transaction;
mod transport;
mod watch;
#[cfg(feature = "xenstore-rs-traits")]
mod xenstore_rs_traits;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::AbortHandle};

use crate::{Attempts, Backoff, Endpoint, Error, Path, Permission, Reply, Request};

pub use transaction::Transaction;
pub use watch::{Event, Watch};

use call::{Call, Purpose};
use connection::{Connection, Replies};
use transport::{Incoming, Outgoing};

/// Transactions that one client has open at a time: an unprivileged domain may have 10
/// (tools/xenstored/core.c, `quota_max_transaction`).
const TRANSACTIONS: usize = 8;

/// How a client behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long a request may take, waiting for others included. After that the connection counts as dead and is made
    /// again. 20 seconds.
    pub deadline: Duration,
    /// How many different paths may wait in a watch's queue before they are replaced by one [`Event::Resync`]. 1024.
    pub events: usize,
    /// How long to wait between attempts to connect again: at first, and at most. 50 milliseconds, 1 second.
    pub reconnect: (Duration, Duration),
    /// What decides about the random part of such waits, and of those between attempts at a transaction. The kernel's
    /// randomness; a seed, to have the same waits again.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(20),
            events: 1024,
            reconnect: (Duration::from_millis(50), Duration::from_secs(1)),
            seed: None,
        }
    }
}

/// A connection to the store. Clones share it; it is closed with the last of them and of their watches and transactions.
///
/// Every method is safe to cancel: a request whose future is dropped is made all the same, and its reply ignored.
/// When the connection is lost, requests under way and new ones fail with [`Error::Disconnected`] until it is made again;
/// then every watch delivers [`Event::Resync`].
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

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

nodes::about_nodes!(Client);

impl Client {
    /// Connects, within a tokio runtime with I/O and time.
    ///
    /// Errors: [`Error::Unreachable`] if that fails. Later the connection is made again as often as needed.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, Error> {
        Self::connect_with(endpoint, Options::default()).await
    }

    /// Connects, with other than the default options.
    pub async fn connect_with(endpoint: Endpoint, options: Options) -> Result<Self, Error> {
        let ends = transport::open(&endpoint).await.map_err(|source| Error::Unreachable {
            endpoint: endpoint.clone(),
            source: Arc::new(source),
        })?;
        Ok(Self::over(ends, endpoint, options))
    }

    /// Starts on a connection that was made already.
    fn over((incoming, outgoing): (Incoming, Outgoing), endpoint: Endpoint, options: Options) -> Self {
        let connection = Arc::new(Connection::new(endpoint, options));
        let epoch = connection.install(outgoing);
        let task = tokio::spawn(connection::run(connection.clone(), incoming, epoch)).abort_handle();
        Self(Arc::new(Inner {
            connection,
            transactions: Arc::new(Semaphore::new(TRANSACTIONS)),
            task,
        }))
    }

    /// Where the store is.
    pub fn endpoint(&self) -> &Endpoint {
        self.0.connection.endpoint()
    }

    /// Whether there is a connection at this moment.
    pub fn is_connected(&self) -> bool {
        self.0.connection.is_connected()
    }

    /// Where the relative paths of a domain start.
    pub async fn domain_path(&self, domid: u16) -> Result<Path, Error> {
        let path = self.ask(Request::DomainPath(domid)).await?.into_value();
        Ok(String::from_utf8_lossy(&path).parse::<Path>()?)
    }

    /// Whether the store talks with a domain. Only for privileged ones.
    pub async fn is_introduced(&self, domid: u16) -> Result<bool, Error> {
        self.ask(Request::IsIntroduced(domid))
            .await
            .map(|reply| reply == Reply::Flag(true))
    }

    /// Tells the store to talk with a domain; fires `@introduceDomain`. Only for privileged ones.
    pub async fn introduce(&self, domid: u16, mfn: u64, port: u32) -> Result<(), Error> {
        self.ask(Request::Introduce { domid, mfn, port }).await.map(drop)
    }

    /// Tells the store to forget a domain; fires `@releaseDomain`. Only for privileged ones.
    pub async fn release(&self, domid: u16) -> Result<(), Error> {
        self.ask(Request::Release(domid)).await.map(drop)
    }

    /// Makes many requests at once, in this order and outside of a transaction: one write, and one wake-up when the last
    /// reply is there. The answers stand in the order of the requests; the outer error is one of the connection.
    pub async fn batch(&self, requests: Vec<Request>) -> Result<Vec<Result<Reply, Error>>, Error> {
        self.call(requests, None).await
    }

    /// Watches a node and all below it, or a special event.
    ///
    /// The watch delivers its own path once at the beginning.
    pub async fn watch(&self, path: &Path) -> Result<Watch, Error> {
        watch::set(self, path).await
    }

    /// Begins a transaction. At most 8 are open at a time; the next waits.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        transaction::begin(self, Vec::new())
            .await
            .map(|(transaction, _)| transaction)
    }

    /// Does something in a transaction, and again from the start as long as others' changes conflict with it, or the store
    /// no longer knows it.
    ///
    /// If `f` fails otherwise, the transaction is aborted and the error handed on. Errors: [`Error::Conflict`] when `retry` is used
    /// up, besides what `f` and the store say.
    ///
    /// The compiler cannot yet see that the future is `Send` if `f` borrows something; what is spawned on several threads
    /// has a loop of its own:
    ///
    /// ```no_run
    /// # use xenplug_xenstore::{Backoff, Client, Error, Path};
    /// # async fn add_one(client: &Client, path: &Path) -> Result<(), Error> {
    /// let retry = Backoff::default();
    /// let mut attempts = retry.attempts();
    /// loop {
    ///     let transaction = client.begin().await?;
    ///     let value = transaction.read(path).await?;
    ///     transaction.write(path, [&value[..], b"1"].concat()).await?;
    ///     match transaction.commit().await {
    ///         Err(error) if error.is_conflict() => attempts.pause().await?,
    ///         end => return end,
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn transaction<T, E, F>(&self, retry: &Backoff, mut f: F) -> Result<T, E>
    where
        F: AsyncFnMut(&Transaction) -> Result<T, E>,
        E: From<Error>,
    {
        let mut attempts = self.attempts(retry);
        loop {
            let transaction = self.begin().await?;
            match f(&transaction).await {
                Ok(done) => match transaction.commit().await {
                    Ok(()) => return Ok(done),
                    Err(error) if error.is_conflict() => attempts.pause().await?,
                    Err(error) => return Err(error.into()),
                },
                // What was found in there says nothing.
                Err(_) if transaction.is_lost().await => attempts.pause().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// All children of one node with their values, as they were at one moment. `None` if the node is absent.
    ///
    /// Costs two round trips, more only if others change the directory meanwhile.
    pub async fn snapshot(&self, path: &Path) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        directory::snapshot(self, path).await
    }

    fn attempts<'a>(&self, retry: &'a Backoff) -> Attempts<'a> {
        retry.attempts_by(self.0.connection.chance())
    }

    /// Itself, outside of a transaction.
    fn scope(&self) -> (&Self, Option<transaction::Id>) {
        (self, None)
    }

    async fn call(&self, requests: Vec<Request>, within: Option<transaction::Id>) -> Result<Replies, Error> {
        let call = Call::new(requests, within, Purpose::Answer)?;
        self.0.connection.ask(call).await
    }
}

#[cfg(test)]
mod tests;
