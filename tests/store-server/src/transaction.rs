//! Transactions: the nodes that they have read and changed.

use std::{collections::HashMap, sync::Arc};

use xenplug_xenstore::{Path, Permission};

use crate::tree::{Node, Tree};

/// Open transaction. It sees a node as it was at its first access, and commits only if no accessed node has changed
/// since (tools/xenstored/transaction.c).
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    touched: HashMap<Path, Touched>,
    /// Nodes that domains have gained or lost.
    pub(crate) counts: HashMap<u16, isize>,
    pub(crate) created: bool,
    /// A request has failed in a way that forbids the commit.
    pub(crate) failed: bool,
}

#[derive(Debug)]
pub(crate) struct Touched {
    order: usize,
    /// The node at the first access.
    before: Option<Arc<Node>>,
    now: Option<Arc<Node>>,
    modified: bool,
    /// Watches to fire after the commit: `None` for none, `Some(true)` for those of this node alone.
    fire: Option<bool>,
}

/// Changed node for which watches fire after the commit.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) path: Path,
    pub(crate) exact: bool,
    pub(crate) before: Option<(Vec<Permission>, u64)>,
}

impl Transaction {
    pub(crate) fn len(&self) -> usize {
        self.touched.len()
    }

    /// Returns the node as this transaction sees it.
    pub(crate) fn node(&mut self, tree: &Tree, path: &Path) -> Option<Arc<Node>> {
        self.touch(tree, path).now.clone()
    }

    pub(crate) fn put(&mut self, tree: &mut Tree, path: &Path, mut node: Node) {
        tree.generation += 1;
        node.generation = tree.generation;
        let touched = self.touch(tree, path);
        touched.now = Some(Arc::new(node));
        touched.modified = true;
    }

    pub(crate) fn delete(&mut self, tree: &Tree, path: &Path) {
        let touched = self.touch(tree, path);
        touched.now = None;
        touched.modified = true;
    }

    /// Fires watches after the commit: those of this node alone if `exact`, unless an earlier change fires all above.
    pub(crate) fn fire(&mut self, tree: &Tree, path: &Path, exact: bool) {
        let touched = self.touch(tree, path);
        touched.fire = Some(exact && touched.fire.unwrap_or(true));
    }

    /// Returns whether a node that this transaction has accessed has changed.
    pub(crate) fn conflicts(&self, tree: &Tree) -> bool {
        let generation = |node: Option<&Arc<Node>>| node.map(|node| node.generation);
        self.touched
            .iter()
            .any(|(path, touched)| generation(touched.before.as_ref()) != generation(tree.node(path)))
    }

    /// Applies the changes. Returns those that fire watches, in order.
    pub(crate) fn apply(self, tree: &mut Tree) -> Vec<Changed> {
        let mut touched: Vec<_> = self
            .touched
            .into_iter()
            .filter(|(_, touched)| touched.modified)
            .collect();
        touched.sort_by_key(|(_, touched)| touched.order);
        let mut changed = Vec::new();
        for (path, touched) in touched {
            match touched.now {
                Some(node) => tree.put(path.clone(), Arc::unwrap_or_clone(node)),
                None if touched.before.is_some() => tree.delete(&path),
                None => {}
            }
            if let Some(exact) = touched.fire {
                let before = touched.before.map(|node| (node.permissions.clone(), node.generation));
                changed.push(Changed { path, exact, before });
            }
        }
        changed
    }

    fn touch(&mut self, tree: &Tree, path: &Path) -> &mut Touched {
        let order = self.touched.len();
        self.touched.entry(path.clone()).or_insert_with(|| {
            let before = tree.node(path).cloned();
            Touched {
                order,
                now: before.clone(),
                before,
                modified: false,
                fire: None,
            }
        })
    }
}
