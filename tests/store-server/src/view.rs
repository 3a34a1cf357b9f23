//! View of the store for one request: its caller and its transaction.

use std::{collections::BTreeMap, sync::Arc};

use xenplug_xenstore::{Errno, Path, Permission};

use crate::{
    domains::{Caller, Domains, Rights},
    options::Quotas,
    transaction::Transaction,
    tree::{Node, Tree},
};

/// Permissions and the generation of their node.
pub(crate) type Stamped = (Vec<Permission>, u64);

/// Change for which watches fire.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) path: Path,
    /// Only watches of this node itself fire.
    pub(crate) exact: bool,
    /// Permissions of the node, before or after the change, and of its parent. The right to read one of them is enough.
    pub(crate) permissions: Vec<Stamped>,
}

/// Right that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Read,
    Write,
    Own,
}

impl Need {
    fn met(self, rights: Rights) -> bool {
        match self {
            Self::Read => rights.read,
            Self::Write => rights.write,
            Self::Own => rights.write && rights.own,
        }
    }

    /// Returns whether these rights to a parent allow the caller to learn the error below it.
    fn hinted(self, rights: Rights) -> bool {
        match self {
            Self::Own => rights.write || rights.own,
            _ => self.met(rights),
        }
    }
}

/// View of the store for one request.
pub(crate) struct View<'a> {
    pub(crate) tree: &'a mut Tree,
    pub(crate) domains: &'a mut Domains,
    pub(crate) quotas: &'a Quotas,
    pub(crate) caller: Caller,
    pub(crate) transaction: Option<&'a mut Transaction>,
    pub(crate) changes: Vec<Change>,
}

impl View<'_> {
    /// Returns a node to which the caller has the right. A caller that may not learn whether the node exists gets
    /// `EACCES` (tools/xenstored/core.c, `get_node` and `errno_from_parents`).
    pub(crate) fn node(&mut self, path: &Path, need: Need) -> Result<Arc<Node>, Errno> {
        let errno = match self.read(path)? {
            Some(node) if need.met(self.rights(&node)) => return Ok(node),
            Some(_) => Errno::Access,
            None => Errno::NoEnt,
        };
        let mut above = path.clone();
        while let Some(parent) = above.parent() {
            if let Some(node) = self.read(&parent)? {
                return Err(if need.hinted(self.rights(&node)) {
                    errno
                } else {
                    Errno::Access
                });
            }
            above = parent;
        }
        Err(errno)
    }

    pub(crate) fn write(&mut self, path: &Path, value: &[u8]) -> Result<(), Errno> {
        match self.node(path, Need::Write) {
            Ok(node) => {
                let node = Node {
                    value: value.to_vec(),
                    ..Arc::unwrap_or_clone(node)
                };
                self.check_size(&node)?;
                self.put(path, node);
            }
            Err(Errno::NoEnt) => self.create(path, value)?,
            Err(errno) => return Err(errno),
        }
        self.changed(path, false, Vec::new());
        Ok(())
    }

    pub(crate) fn mkdir(&mut self, path: &Path) -> Result<(), Errno> {
        match self.node(path, Need::Write) {
            Ok(_) => Ok(()),
            Err(Errno::NoEnt) => {
                self.create(path, &[])?;
                self.changed(path, false, Vec::new());
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    pub(crate) fn rm(&mut self, path: &Path) -> Result<(), Errno> {
        match self.node(path, Need::Write) {
            Ok(_) => self.remove(path),
            Err(Errno::NoEnt) => {
                let parent = path.parent().ok_or(Errno::Invalid)?;
                self.read(&parent)?.map(drop).ok_or(Errno::NoEnt)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Removes an existing node and all below it.
    pub(crate) fn remove(&mut self, path: &Path) -> Result<(), Errno> {
        let parent = path.parent().ok_or(Errno::Invalid)?;
        let Some(above) = self.read(&parent)? else {
            return Err(Errno::Invalid);
        };
        self.remove_below(path, path)?;
        let mut above = Arc::unwrap_or_clone(above);
        above.children.retain(|name| &**name != path.name());
        self.put(&parent, above);
        Ok(())
    }

    pub(crate) fn set_permissions(&mut self, path: &Path, permissions: Vec<Permission>) -> Result<(), Errno> {
        let node = self.node(path, Need::Own)?;
        let before = (node.permissions.clone(), node.generation);
        let node = Node {
            permissions,
            ..Arc::unwrap_or_clone(node)
        };
        if !self.caller.is_privileged() && before.0.first().map(|first| first.domid) != Some(node.owner()) {
            return Err(Errno::Perm);
        }
        self.check_size(&node)?;
        self.count(before.0.first().map_or(0, |first| first.domid), -1);
        self.count(node.owner(), 1);
        self.put(path, node);
        self.changed(path, false, vec![before]);
        Ok(())
    }

    /// Creates a node and its missing ancestors, with the permissions of the nearest existing one; an unprivileged
    /// caller owns the nodes that it creates.
    fn create(&mut self, path: &Path, value: &[u8]) -> Result<(), Errno> {
        let mut missing = vec![path.clone()];
        let (mut top, mut node) = loop {
            let parent = missing.last().and_then(Path::parent).ok_or(Errno::Invalid)?;
            match self.read(&parent)? {
                Some(node) => break (parent, Arc::unwrap_or_clone(node)),
                None => missing.push(parent),
            }
        };
        let mut permissions = node.permissions.clone();
        if !self.caller.is_privileged() {
            let nodes = self.domains.nodes(self.caller.domid);
            if nodes + missing.len() > self.quotas.nodes {
                return Err(Errno::NoSpace);
            }
            permissions[0].domid = self.caller.domid;
        }
        let mut made = Vec::new();
        while let Some(next) = missing.pop() {
            node.children.push(next.name().into());
            let value = if missing.is_empty() { value.to_vec() } else { Vec::new() };
            let child = Node {
                value,
                permissions: permissions.clone(),
                children: Vec::new(),
                generation: 0,
            };
            made.push((std::mem::replace(&mut top, next), std::mem::replace(&mut node, child)));
        }
        made.push((top, node));
        for (_, node) in &made {
            self.check_size(node)?;
        }
        self.count(permissions[0].domid, made.len() as isize - 1);
        for (path, node) in made {
            self.put(&path, node);
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.created = true;
        }
        Ok(())
    }

    /// Removes children before parents. Watches of each node fire, and watches above for the topmost only.
    fn remove_below(&mut self, path: &Path, top: &Path) -> Result<(), Errno> {
        let Some(node) = self.read(path)? else {
            return Ok(());
        };
        for name in &node.children {
            if let Ok(child) = path.join(name) {
                self.remove_below(&child, top)?;
            }
        }
        self.changed(path, path != top, Vec::new());
        self.count(node.owner(), -1);
        match &mut self.transaction {
            Some(transaction) => transaction.delete(self.tree, path),
            None => self.tree.delete(path),
        }
        Ok(())
    }

    /// Returns the node as this request sees it. Fails if the transaction accesses too many nodes.
    fn read(&mut self, path: &Path) -> Result<Option<Arc<Node>>, Errno> {
        let Some(transaction) = &mut self.transaction else {
            return Ok(self.tree.node(path).cloned());
        };
        let node = transaction.node(self.tree, path);
        if !self.caller.is_privileged() && transaction.len() > self.quotas.transaction_nodes {
            transaction.failed = true;
            return Err(Errno::NoSpace);
        }
        Ok(node)
    }

    fn put(&mut self, path: &Path, node: Node) {
        match &mut self.transaction {
            Some(transaction) => transaction.put(self.tree, path, node),
            None => self.tree.put(path.clone(), node),
        }
    }

    fn count(&mut self, domid: u16, by: isize) {
        match &mut self.transaction {
            Some(transaction) => *transaction.counts.entry(domid).or_default() += by,
            None => self.domains.count(domid, by, self.tree.generation),
        }
    }

    /// Fires watches for a change: in a transaction, after its commit.
    fn changed(&mut self, path: &Path, exact: bool, before: Vec<Stamped>) {
        match &mut self.transaction {
            Some(transaction) => transaction.fire(self.tree, path, exact),
            None => self.changes.push(change(self.tree, path.clone(), exact, before)),
        }
    }

    fn check_size(&self, node: &Node) -> Result<(), Errno> {
        let allowed = self.caller.is_privileged() || node.size() < self.quotas.node_size;
        if allowed { Ok(()) } else { Err(Errno::NoSpace) }
    }

    fn rights(&self, node: &Node) -> Rights {
        self.domains.rights(self.caller, &node.permissions, node.generation)
    }
}

/// Creates the change of a node outside of a transaction, or after a commit (tools/xenstored/watch.c,
/// `watch_permitted`).
pub(crate) fn change(tree: &Tree, path: Path, exact: bool, before: Vec<Stamped>) -> Change {
    let mut permissions = before;
    if let Some(node) = tree.node(&path) {
        let parent = path.parent().and_then(|parent| tree.node(&parent));
        permissions.extend(
            [Some(node), parent]
                .into_iter()
                .flatten()
                .map(|node| (node.permissions.clone(), node.generation)),
        );
    }
    Change {
        path,
        exact,
        permissions,
    }
}

/// Permissions of the special events: at first, privileged domains only.
#[derive(Debug)]
pub(crate) struct Special(BTreeMap<&'static str, Stamped>);

/// Fired by INTRODUCE.
pub(crate) const INTRODUCE: &str = "@introduceDomain";

/// Fired when a domain is released.
pub(crate) const RELEASE: &str = "@releaseDomain";

impl Default for Special {
    fn default() -> Self {
        Self(BTreeMap::from(
            [INTRODUCE, RELEASE].map(|name| (name, (vec![Permission::none(0)], 0))),
        ))
    }
}

impl Special {
    pub(crate) fn of(&self, name: &str) -> Option<&Stamped> {
        self.0.get(name)
    }

    pub(crate) fn set(&mut self, name: &str, permissions: Stamped) {
        if let Some(of) = self.0.get_mut(name) {
            *of = permissions;
        }
    }
}
