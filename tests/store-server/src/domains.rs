//! Known domains, their rights and their use of quotas.

use std::collections::HashMap;

use xenplug_xenstore::{Path, Permission};

/// Domain that sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) domid: u16,
    /// Domain on whose behalf it may act (SET_TARGET).
    pub(crate) target: Option<u16>,
}

impl Caller {
    pub(crate) fn is_privileged(self) -> bool {
        self.domid == 0
    }

    fn is(self, domid: u16) -> bool {
        self.domid == domid || self.target == Some(domid)
    }
}

/// Rights of a caller to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) own: bool,
}

/// Known domain.
#[derive(Debug)]
struct Domain {
    /// Generation of the store when the domain became known: older permissions were for an earlier domain of its domid.
    since: u64,
    introduced: bool,
    /// Number of nodes that it owns.
    nodes: usize,
    target: Option<u16>,
}

/// Known domains.
#[derive(Debug)]
pub(crate) struct Domains(HashMap<u16, Domain>);

impl Default for Domains {
    fn default() -> Self {
        Self(HashMap::from([(
            0,
            Domain {
                since: 0,
                introduced: true,
                nodes: 0,
                target: None,
            },
        )]))
    }
}

impl Domains {
    /// Adds a domain unless it is known.
    pub(crate) fn mention(&mut self, domid: u16, generation: u64) {
        self.0.entry(domid).or_insert(Domain {
            since: generation,
            introduced: false,
            nodes: 0,
            target: None,
        });
    }

    /// Introduces a domain. Returns whether it was not introduced before.
    pub(crate) fn introduce(&mut self, domid: u16, generation: u64) -> bool {
        self.mention(domid, generation);
        self.0
            .get_mut(&domid)
            .is_some_and(|domain| !std::mem::replace(&mut domain.introduced, true))
    }

    pub(crate) fn is_introduced(&self, domid: u16) -> bool {
        self.0.get(&domid).is_some_and(|domain| domain.introduced)
    }

    pub(crate) fn forget(&mut self, domid: u16) {
        self.0.remove(&domid);
    }

    pub(crate) fn set_target(&mut self, domid: u16, target: u16) {
        if let Some(domain) = self.0.get_mut(&domid) {
            domain.target = Some(target);
        }
    }

    pub(crate) fn caller(&self, domid: u16) -> Caller {
        Caller {
            domid,
            target: self.0.get(&domid).and_then(|domain| domain.target),
        }
    }

    /// Returns the number of nodes that a domain owns.
    pub(crate) fn nodes(&self, domid: u16) -> usize {
        self.0.get(&domid).map_or(0, |domain| domain.nodes)
    }

    /// Adds to the number of nodes that a domain owns, or subtracts.
    pub(crate) fn count(&mut self, domid: u16, by: isize, generation: u64) {
        self.mention(domid, generation);
        if let Some(domain) = self.0.get_mut(&domid) {
            domain.nodes = domain.nodes.saturating_add_signed(by);
        }
    }

    /// Computes the rights of a caller from permissions set at a generation (tools/xenstored/core.c, `perm_for_conn`, and domain.c, `chk_domain_generation`).
    pub(crate) fn rights(&self, caller: Caller, permissions: &[Permission], generation: u64) -> Rights {
        let Some((first, others)) = permissions.split_first() else {
            return Rights {
                read: false,
                write: false,
                own: false,
            };
        };
        if caller.is_privileged() || caller.is(first.domid) {
            return Rights {
                read: true,
                write: true,
                own: true,
            };
        }
        let known = |domid: u16| self.0.get(&domid).is_some_and(|domain| domain.since <= generation);
        let own_entry = others.iter().find(|entry| caller.is(entry.domid) && known(entry.domid));
        let access = own_entry.unwrap_or(first).access;
        Rights {
            read: access.reads(),
            write: access.writes(),
            own: false,
        }
    }
}

/// Returns the path where the relative paths of a domain start.
pub(crate) fn home(domid: u16) -> Path {
    Path::home(domid)
}
