//! Nodes of the store.

use std::{collections::HashMap, sync::Arc};

use xenplug_xenstore::{Path, Permission};

/// Node of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) value: Vec<u8>,
    /// Permissions, never empty: the first names the owner.
    pub(crate) permissions: Vec<Permission>,
    /// Names of the children, in the order of their creation.
    pub(crate) children: Vec<Arc<str>>,
    /// Generation of the last change.
    pub(crate) generation: u64,
}

impl Node {
    pub(crate) fn owner(&self) -> u16 {
        self.permissions.first().map_or(0, |permission| permission.domid)
    }

    /// Returns the number of bytes that xenstored stores for the node (tools/xenstored/core.h, `struct xs_tdb_record_hdr`).
    pub(crate) fn size(&self) -> usize {
        24 + 8 * self.permissions.len() + self.value.len() + self.names_size()
    }

    /// Returns the size of the children's names, each with its NUL.
    pub(crate) fn names_size(&self) -> usize {
        self.children.iter().map(|name| name.len() + 1).sum()
    }

    /// Returns the children's names, each with its NUL.
    pub(crate) fn names(&self) -> Vec<u8> {
        let mut list = Vec::with_capacity(self.names_size());
        for name in &self.children {
            list.extend_from_slice(name.as_bytes());
            list.push(0);
        }
        list
    }
}

/// Nodes of the store.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: HashMap<Path, Arc<Node>>,
    /// Counter of changes.
    pub(crate) generation: u64,
}

impl Default for Tree {
    /// Creates the nodes with which xenstored starts (tools/xenstored/core.c, `setup_structure`).
    fn default() -> Self {
        let mut tree = Self {
            nodes: HashMap::new(),
            generation: 0,
        };
        let [root, tool, xenstored] = ["/", "/tool", "/tool/xenstored"].map(|path| (path, path.parse::<Path>()));
        for ((_, path), child) in [(root, Some("tool")), (tool, Some("xenstored")), (xenstored, None)] {
            let node = Node {
                value: Vec::new(),
                permissions: vec![Permission::none(0)],
                children: child.into_iter().map(Arc::from).collect(),
                generation: 0,
            };
            if let Ok(path) = path {
                tree.put(path, node);
            }
        }
        tree
    }
}

impl Tree {
    pub(crate) fn node(&self, path: &Path) -> Option<&Arc<Node>> {
        self.nodes.get(path)
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn put(&mut self, path: Path, mut node: Node) {
        self.generation += 1;
        node.generation = self.generation;
        self.nodes.insert(path, Arc::new(node));
    }

    pub(crate) fn delete(&mut self, path: &Path) {
        self.generation += 1;
        self.nodes.remove(path);
    }

    /// Returns the topmost nodes that a domain owns.
    pub(crate) fn owned_by(&self, domid: u16) -> Vec<Path> {
        let mut owned: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.owner() == domid)
            .map(|(path, _)| path.clone())
            .collect();
        owned.sort();
        owned
    }
}
