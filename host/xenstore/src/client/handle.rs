//! The client: requests about nodes, domains and watches, and transactions with retries.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    call::TransactionId,
    directory, nodes,
    options::Options,
    session::Session,
    snapshot,
    transaction::{self, Transaction},
    transport,
    watch::{self, Watch},
};
use crate::{Backoff, Endpoint, Error, Path, Permission, Reply, Request};

/// A connection to the store. Clones share it; it is closed with the last of them, their watches and their transactions.
///
/// Every method is safe to cancel: a request whose future is dropped is sent all the same, and its reply ignored.
/// When the connection is lost, requests under way and new ones fail with [`Error::Disconnected`] until the client has
/// connected again; then every watch delivers [`Event::Resync`](super::Event::Resync).
#[derive(Clone, Debug)]
pub struct Client(Session);

nodes::about_nodes!(Client);

impl Client {
    /// Connects, within a tokio runtime with I/O and time.
    ///
    /// Errors: [`Error::Unreachable`]. A connection that is lost later is made again.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, Error> {
        Self::connect_with(endpoint, Options::default()).await
    }

    /// Connects, with options.
    pub async fn connect_with(endpoint: Endpoint, options: Options) -> Result<Self, Error> {
        let ends = transport::open(&endpoint).await.map_err(|source| Error::Unreachable {
            endpoint: endpoint.clone(),
            source: Arc::new(source),
        })?;
        Ok(Self(Session::start(ends, endpoint, options)))
    }

    /// Returns the endpoint of the store.
    pub fn endpoint(&self) -> &Endpoint {
        self.0.connection().endpoint()
    }

    /// Returns whether the client is connected at this moment.
    pub fn is_connected(&self) -> bool {
        self.0.connection().is_connected()
    }

    /// Returns the home of a domain, where its relative paths start.
    pub async fn domain_path(&self, domid: u16) -> Result<Path, Error> {
        let path = self.ask(Request::DomainPath(domid)).await?.into_value();
        Ok(String::from_utf8_lossy(&path).parse::<Path>()?)
    }

    /// Returns whether a domain is introduced to the store. For privileged domains only.
    pub async fn is_introduced(&self, domid: u16) -> Result<bool, Error> {
        self.ask(Request::IsIntroduced(domid))
            .await
            .map(|reply| reply == Reply::Flag(true))
    }

    /// Introduces a domain to the store; fires `@introduceDomain`. For privileged domains only.
    pub async fn introduce(&self, domid: u16, mfn: u64, port: u32) -> Result<(), Error> {
        self.ask(Request::Introduce { domid, mfn, port }).await.map(drop)
    }

    /// Releases a domain from the store; fires `@releaseDomain`. For privileged domains only.
    pub async fn release(&self, domid: u16) -> Result<(), Error> {
        self.ask(Request::Release(domid)).await.map(drop)
    }

    /// Sends many requests at once, in this order and outside of a transaction: one write, and one wake-up after the last
    /// reply. The replies are in the order of the requests; the outer error is one of the connection.
    pub async fn batch(&self, requests: Vec<Request>) -> Result<Vec<Result<Reply, Error>>, Error> {
        self.0.requests(requests, None).await
    }

    /// Watches a node and all below it, or a special event.
    ///
    /// Its first event is its own path.
    pub async fn watch(&self, path: &Path) -> Result<Watch, Error> {
        watch::set(&self.0, path).await
    }

    /// Begins a transaction. At most 8 are open at a time; the next one waits.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        transaction::begin(&self.0, Vec::new())
            .await
            .map(|(transaction, _)| transaction)
    }

    /// Runs `f` in a transaction, and again as long as changes of others conflict with it, or the store has forgotten it.
    ///
    /// If `f` fails otherwise, the transaction is aborted and the error returned. Errors: [`Error::Conflict`] when `retry`
    /// is used up, and those of `f` and the store.
    ///
    /// The compiler cannot yet see that the future is `Send` if `f` borrows; a task on a multi-threaded runtime writes the
    /// loop itself:
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
        let mut attempts = self.0.attempts(retry);
        loop {
            let transaction = self.begin().await?;
            match f(&transaction).await {
                Ok(done) => match transaction.commit().await {
                    Ok(()) => return Ok(done),
                    Err(error) if error.is_conflict() => attempts.pause().await?,
                    Err(error) => return Err(error.into()),
                },
                // The failure comes from the lost transaction, and not from the nodes.
                Err(_) if transaction.is_lost().await => attempts.pause().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads all children of a node with their values, as they were at one moment. `None` if the node is absent.
    ///
    /// Costs two round trips, and more only if others change the directory meanwhile.
    pub async fn snapshot(&self, path: &Path) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        snapshot::read(&self.0, path).await
    }

    #[cfg(test)]
    pub(super) fn over(ends: (transport::Incoming, transport::Outgoing), endpoint: Endpoint, options: Options) -> Self {
        Self(Session::start(ends, endpoint, options))
    }

    fn scope(&self) -> (&Session, Option<TransactionId>) {
        (&self.0, None)
    }
}
