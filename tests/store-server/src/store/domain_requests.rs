//! Requests about domains, and permissions of special events.

use xenplug_xenstore::{
    Errno, Permission,
    protocol::{decimal, first_string, only_string, strings},
};

use super::{Reply, Store, ok};
use crate::{
    domains::Caller,
    view::{Change, INTRODUCE, RELEASE, View},
};

impl Store {
    pub(super) fn introduce(&mut self, payload: &[u8], changes: &mut Vec<Change>) -> Reply {
        let mut arguments = strings(payload);
        let domid = arguments.next().and_then(decimal::<u16>).ok_or(Errno::Invalid)?;
        let port = arguments.nth(1).and_then(decimal::<u32>).ok_or(Errno::Invalid)?;
        if port == 0 {
            return Err(Errno::Invalid);
        }
        if self.domains.introduce(domid, self.tree.generation) {
            changes.extend(self.special_change(INTRODUCE));
        }
        Ok(ok())
    }

    /// Releases a domain: closes its connections and removes its nodes.
    pub(super) fn release(&mut self, payload: &[u8], changes: &mut Vec<Change>) -> Reply {
        let domid = self.introduced(only_string(payload))?;
        if domid == 0 {
            return Err(Errno::Invalid);
        }
        for peer in self.peers.values_mut().filter(|peer| peer.domid == domid) {
            peer.watches.clear();
            peer.transactions.clear();
            peer.outbox.close();
        }
        for path in self.tree.owned_by(domid) {
            let mut view = View {
                tree: &mut self.tree,
                domains: &mut self.domains,
                quotas: &self.options.quotas,
                caller: Caller { domid: 0, target: None },
                transaction: None,
                changes: Vec::new(),
            };
            if view.tree.node(&path).is_some() {
                view.remove(&path)?;
            }
            changes.append(&mut view.changes);
        }
        self.domains.forget(domid);
        changes.extend(self.special_change(RELEASE));
        Ok(ok())
    }

    pub(super) fn introduced(&self, domid: Option<&[u8]>) -> Result<u16, Errno> {
        let domid = domid.and_then(decimal).ok_or(Errno::Invalid)?;
        if self.domains.is_introduced(domid) {
            Ok(domid)
        } else {
            Err(Errno::NoEnt)
        }
    }

    /// Parses the permissions of a SET_PERMS.
    pub(super) fn permissions(&mut self, caller: Caller, payload: &[u8]) -> Result<Vec<Permission>, Errno> {
        let permissions: Vec<_> = strings(payload)
            .skip(1)
            .map(|text| permission(text).ok_or(Errno::Invalid))
            .collect::<Result<_, _>>()?;
        if permissions.is_empty() {
            return Err(Errno::Invalid);
        }
        if !caller.is_privileged() && permissions.len() > self.options.quotas.permissions {
            return Err(Errno::NoSpace);
        }
        for permission in &permissions {
            self.domains.mention(permission.domid, self.tree.generation);
        }
        Ok(permissions)
    }

    pub(super) fn set_special(&mut self, caller: Caller, payload: &[u8]) -> Reply {
        let permissions = self.permissions(caller, payload)?;
        let name = first_string(payload)
            .and_then(|parts| std::str::from_utf8(parts.0).ok())
            .ok_or(Errno::Invalid)?;
        let (before, generation) = self.special.of(name).ok_or(Errno::Invalid)?;
        if !self.domains.rights(caller, before, *generation).own {
            return Err(Errno::Access);
        }
        self.special.set(name, (permissions, self.tree.generation));
        Ok(ok())
    }

    pub(super) fn special_change(&self, name: &str) -> Option<Change> {
        let permissions = vec![self.special.of(name)?.clone()];
        Some(Change {
            path: name.parse().ok()?,
            exact: true,
            permissions,
        })
    }
}

fn permission(text: &[u8]) -> Option<Permission> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
