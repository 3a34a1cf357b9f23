//! Options of a server: quotas, and access to special watches.

/// Options of a server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Limits of an unprivileged domain.
    pub quotas: Quotas,
    /// Refuse watches of `@introduceDomain` and `@releaseDomain`, to every domain.
    pub refuse_special_watches: bool,
}

/// Limits of an unprivileged domain; the defaults are those of tools/xenstored/core.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quotas {
    /// Nodes it owns: 1000.
    pub nodes: usize,
    /// Bytes of one node with its value, permissions and children's names: 2048.
    pub node_size: usize,
    /// Permissions of one node: 5.
    pub permissions: usize,
    /// Watches: 128.
    pub watches: usize,
    /// Transactions at a time: 10.
    pub transactions: usize,
    /// Nodes touched in one transaction: 1024.
    pub transaction_nodes: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            nodes: 1000,
            node_size: 2048,
            permissions: 5,
            watches: 128,
            transactions: 10,
            transaction_nodes: 1024,
        }
    }
}
