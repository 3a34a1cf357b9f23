//! Snapshots: all children of a node at one moment.

use std::collections::BTreeMap;

use super::{session::Session, transaction};
use crate::{Backoff, Errno, Error, Path, Reply, Request};

/// Reads all children of a node at one moment.
///
/// A transaction alone does not make reads consistent, its commit does: xenstored then checks that every node that was
/// read is unchanged. To take two round trips and not four, the client lists the children while the transaction begins,
/// then lists them again, reads and commits at once. If the two lists differ, it starts over.
pub(super) async fn read(session: &Session, path: &Path) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
    let retry = Backoff::default();
    let mut attempts = session.attempts(&retry);
    loop {
        let list = Request::Directory(path.clone());
        let (transaction, mut listed) = transaction::begin(session, vec![list.clone()]).await?;
        let mut names = match listed.pop() {
            Some(Ok(Reply::Names(names))) => names,
            Some(Err(error)) if error.is_not_found() => return Ok(None),
            Some(Err(error)) if error.errno() == Some(Errno::TooBig) => transaction.directory(path).await?,
            Some(Err(error)) => return Err(error),
            _ => return Err(Error::Disconnected),
        };
        let reads = names.iter().map(|name| path.join(name).map(Request::Read));
        let requests: Vec<Request> = std::iter::once(Ok(list)).chain(reads).collect::<Result<_, _>>()?;
        let (mut replies, end) = transaction.commit_after(requests).await?;
        let values = replies.split_off(1);
        let unchanged = match replies.pop() {
            Some(Ok(Reply::Names(again))) => again == names,
            // Too many for one message: they were listed within the transaction before.
            Some(Err(error)) => error.errno() == Some(Errno::TooBig),
            _ => false,
        };
        if end.as_ref().is_err_and(Error::is_conflict) || !unchanged {
            attempts.pause().await?;
            continue;
        }
        end?;
        return names
            .drain(..)
            .zip(values)
            .map(|(name, read)| Ok((name, read?.into_value())))
            .collect::<Result<_, _>>()
            .map(Some);
    }
}
