//! State that the devices of one daemon share: claims on disks, helper processes, undo commands, the view of the store.

mod changes;
mod claims;
mod helper_key;
mod helpers;
mod store_queries;
mod undo;

use std::sync::Arc;

pub(crate) use changes::Changes;
pub(crate) use claims::Claims;
pub use claims::{Claim, Sharing};
pub use helper_key::HelperKey;
pub(crate) use helpers::Joined;
pub use helpers::SharedHelpers;
pub use store_queries::StoreQueries;
pub(crate) use undo::SharedUndo;

use store_queries::NoStore;

/// State that all devices of a daemon share.
///
/// The default has no store behind it: no disk is in foreign use, and nobody can tell whether a helper serves a device.
pub struct SharedResources {
    /// The helper processes that keep running.
    pub helpers: SharedHelpers,
    pub(crate) claims: Claims,
    pub(crate) undo: SharedUndo,
    pub(crate) store: Arc<dyn StoreQueries>,
    pub(crate) changes: Changes,
}

impl SharedResources {
    /// Creates the empty state of a daemon that answers questions about the store by `store`.
    pub fn new(store: impl StoreQueries + 'static) -> Self {
        let (store, changes): (Arc<dyn StoreQueries>, _) = (Arc::new(store), Changes::default());
        Self {
            helpers: SharedHelpers::new(Arc::clone(&store), changes.clone()),
            claims: Claims::new(changes.clone()),
            undo: SharedUndo::default(),
            store,
            changes,
        }
    }
}

impl Default for SharedResources {
    fn default() -> Self {
        Self::new(NoStore)
    }
}
