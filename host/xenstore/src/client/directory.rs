//! Lists of the children of a node, of any length.

use super::{call::TransactionId, session::Session};
use crate::{Backoff, Errno, Error, Path, Reply, Request};

/// Longest list that the client accepts, in bytes: far more than any node holds.
const LIST_MAX: usize = 16 << 20;

/// Lists a node's children, in parts if they do not fit into one message.
pub(super) async fn list(session: &Session, within: Option<TransactionId>, path: &Path) -> Result<Vec<String>, Error> {
    match session.request(Request::Directory(path.clone()), within).await {
        Ok(Reply::Names(names)) => Ok(names),
        Err(error) if error.errno() == Some(Errno::TooBig) => list_in_parts(session, within, path).await,
        Err(error) => Err(error),
        Ok(_) => Ok(Vec::new()),
    }
}

async fn list_in_parts(session: &Session, within: Option<TransactionId>, path: &Path) -> Result<Vec<String>, Error> {
    let retry = Backoff::default();
    let mut attempts = session.attempts(&retry);
    'again: loop {
        let (mut list, mut offset, mut at) = (Vec::new(), 0, None);
        while let Reply::Part {
            generation,
            names,
            bytes,
            last,
        } = session
            .request(Request::DirectoryPart(path.clone(), offset), within)
            .await?
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
        return Err(Error::Protocol(format!("an endless list of the children of {path}")));
    }
}
