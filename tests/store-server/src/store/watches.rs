//! Requests about watches, and their events.

use xenplug_xenstore::{Errno, Path, Permission, protocol::strings};

use super::{Peer, Reply, Store, absolute, ok};
use crate::{domains::home, view::Change};

#[derive(Debug)]
pub(super) struct Watch {
    /// Absolute or special path.
    path: Path,
    token: Vec<u8>,
    relative: bool,
}

impl Store {
    pub(super) fn watch(&mut self, id: u64, payload: &[u8]) -> Reply {
        let caller = self.caller(id);
        let domid_watches: usize = self
            .peers
            .values()
            .filter(|peer| peer.domid == caller.domid)
            .map(|peer| peer.watches.len())
            .sum();
        let peer = self.peers.get_mut(&id).ok_or(Errno::Invalid)?;
        let (path, token) = watch_arguments(payload)?;
        let relative = !path.starts_with(b"/") && !path.starts_with(b"@");
        let path = absolute(caller, path)?;
        if self.options.refuse_special_watches && path.is_special() {
            return Err(Errno::Access);
        }
        if peer
            .watches
            .iter()
            .any(|watch| watch.path == path && watch.token == token)
        {
            return Err(Errno::Exists);
        }
        // xenstored compares before it adds, so that one more than the quota can be set.
        if !caller.is_privileged() && domid_watches > self.options.quotas.watches {
            return Err(Errno::TooBig);
        }
        peer.watches.push(Watch {
            path,
            token: token.to_vec(),
            relative,
        });
        Ok(ok())
    }

    /// Sends the first event of the watch that was just set.
    pub(super) fn first_event(&self, id: u64) {
        if let Some(peer) = self.peers.get(&id)
            && let Some(watch) = peer.watches.last()
        {
            watch.fire(peer, &watch.path);
        }
    }

    pub(super) fn unwatch(&mut self, id: u64, payload: &[u8]) -> Reply {
        let caller = self.caller(id);
        let peer = self.peers.get_mut(&id).ok_or(Errno::Invalid)?;
        let (path, token) = watch_arguments(payload)?;
        let path = absolute(caller, path)?;
        let index = peer
            .watches
            .iter()
            .position(|watch| watch.path == path && watch.token == token);
        peer.watches.remove(index.ok_or(Errno::NoEnt)?);
        Ok(ok())
    }

    pub(super) fn reset(&mut self, id: u64) -> Reply {
        let peer = self.peers.get_mut(&id).ok_or(Errno::Invalid)?;
        peer.watches.clear();
        peer.transactions.clear();
        Ok(ok())
    }

    /// Fires every watch of the changed nodes whose domain has the right to read them.
    pub(super) fn notify(&self, changes: &[Change]) {
        for change in changes {
            for peer in self.peers.values() {
                let caller = self.domains.caller(peer.domid);
                let reads = |(permissions, generation): &(Vec<Permission>, u64)| {
                    self.domains.rights(caller, permissions, *generation).read
                };
                if !change.permissions.iter().any(reads) {
                    continue;
                }
                for watch in &peer.watches {
                    let concerned = match change.exact {
                        true => watch.path == change.path,
                        false => change.path.below(&watch.path).is_some(),
                    };
                    if concerned {
                        watch.fire(peer, &change.path);
                    }
                }
            }
        }
    }
}

impl Watch {
    fn fire(&self, peer: &Peer, path: &Path) {
        let path = match self.relative {
            true => path.below(&home(peer.domid)).unwrap_or(path.as_str()),
            false => path.as_str(),
        };
        peer.outbox.event(path, &self.token);
    }
}

/// Parses a payload of exactly a path and a token.
fn watch_arguments(payload: &[u8]) -> Result<(&[u8], &[u8]), Errno> {
    let mut parts = strings(payload);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(path), Some(token), None) => Ok((path, token)),
        _ => Err(Errno::Invalid),
    }
}
