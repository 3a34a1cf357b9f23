//! Requests that begin and end transactions.

use xenplug_xenstore::{Errno, protocol::only_string};

use super::{Reply, Store, ok, terminated};
use crate::{
    transaction::Transaction,
    view::{Change, change},
};

impl Store {
    pub(super) fn begin(&mut self, id: u64, within: Option<u32>) -> Reply {
        let caller = self.caller(id);
        let peer = self.peers.get_mut(&id).ok_or(Errno::Invalid)?;
        if within.is_some() {
            return Err(Errno::Busy);
        }
        // As for watches, xenstored allows one more than the quota.
        if !caller.is_privileged() && peer.transactions.len() > self.options.quotas.transactions {
            return Err(Errno::NoSpace);
        }
        loop {
            peer.last_transaction = peer.last_transaction.wrapping_add(1).max(1);
            if !peer.transactions.contains_key(&peer.last_transaction) {
                break;
            }
        }
        peer.transactions.insert(peer.last_transaction, Transaction::default());
        Ok(terminated(&peer.last_transaction.to_string()))
    }

    pub(super) fn end(&mut self, id: u64, within: Option<u32>, payload: &[u8], changes: &mut Vec<Change>) -> Reply {
        let commit = match only_string(payload) {
            Some(b"T") => true,
            Some(b"F") => false,
            _ => return Err(Errno::Invalid),
        };
        let caller = self.caller(id);
        let peer = self.peers.get_mut(&id).ok_or(Errno::Invalid)?;
        let transaction = within
            .and_then(|number| peer.transactions.remove(&number))
            .ok_or(Errno::NoEnt)?;
        if !commit {
            return Ok(ok());
        }
        if transaction.failed {
            return Err(Errno::NoMemory);
        }
        if self.conflicts > 0 {
            self.conflicts -= 1;
            return Err(Errno::Again);
        }
        let got = transaction.counts.get(&caller.domid).copied().unwrap_or_default();
        let nodes = self.domains.nodes(caller.domid).saturating_add_signed(got);
        if transaction.created && !caller.is_privileged() && nodes > self.options.quotas.nodes {
            return Err(Errno::NoSpace);
        }
        if transaction.conflicts(&self.tree) {
            return Err(Errno::Again);
        }
        for (domid, by) in &transaction.counts {
            self.domains.count(*domid, *by, self.tree.generation);
        }
        let changed = transaction.apply(&mut self.tree);
        changes.extend(changed.into_iter().map(|changed| {
            change(
                &self.tree,
                changed.path,
                changed.exact,
                changed.before.into_iter().collect(),
            )
        }));
        Ok(ok())
    }
}
