//! The children of a node: however many, and all at one moment.

use std::collections::BTreeMap;

use super::{
    Backoff, Client,
    transaction::{self, Id},
};
use crate::{Errno, Error, Path, Reply, Request};

/// How much of a list is believed: far more than any node holds.
const LIST_MAX: usize = 16 << 20;

/// Lists a node's children, in parts if they do not fit into one message.
pub(super) async fn list(client: &Client, within: Option<Id>, path: &Path) -> Result<Vec<String>, Error> {
    match ask(client, within, Request::Directory(path.clone())).await {
        Ok(Reply::Names(names)) => Ok(names),
        Err(error) if error.errno() == Some(Errno::TooBig) => list_in_parts(client, within, path).await,
        Err(error) => Err(error),
        Ok(_) => Ok(Vec::new()),
    }
}

async fn list_in_parts(client: &Client, within: Option<Id>, path: &Path) -> Result<Vec<String>, Error> {
    let retry = Backoff::default();
    let mut attempts = client.attempts(&retry);
    'again: loop {
        let (mut list, mut offset, mut at) = (Vec::new(), 0, None);
        while let Reply::Part {
            generation,
            names,
            bytes,
            last,
        } = ask(client, within, Request::DirectoryPart(path.clone(), offset)).await?
        {
            // Another generation: the node has changed, and the parts do not fit together.
            if at.get_or_insert_with(|| generation.clone()) != &generation {
                attempts.pause().await?;
                continue 'again;
            }
            offset += bytes;
            list.extend(names);
            if last {
                return Ok(list);
            }
            if bytes == 0 || offset > LIST_MAX {
                break;
            }
        }
        return Err(Error::Protocol(format!("a list of the children of {path} without end")));
    }
}

/// Reads all children of a node at one moment.
///
/// A transaction alone does not make reads consistent, its commit does: xenstored then checks that every node that was
/// read is unchanged. So that it takes two round trips and not four, the children are listed while the transaction is
/// being begun, and listed again, read and committed at once. If the two lists differ, that was in vain.
pub(super) async fn snapshot(client: &Client, path: &Path) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
    let retry = Backoff::default();
    let mut attempts = client.attempts(&retry);
    loop {
        let list = Request::Directory(path.clone());
        let (transaction, mut listed) = transaction::begin(client, vec![list.clone()]).await?;
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

async fn ask(client: &Client, within: Option<Id>, request: Request) -> Result<Reply, Error> {
    client
        .call(vec![request], within)
        .await?
        .pop()
        .unwrap_or(Err(Error::Disconnected))
}
