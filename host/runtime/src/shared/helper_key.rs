//! The identity of a helper that serves a whole guest.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use xenplug_xenbus::{DomId, Kind};

/// Identity of a helper that serves a whole guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperKey {
    /// The plugin that starts the helper.
    pub plugin: String,
    /// The helper's name in the configuration.
    pub helper: String,
    /// The kind of the guest's devices that the helper serves.
    pub kind: Kind,
    /// The guest.
    pub guest: DomId,
}

impl HelperKey {
    /// A tag that no other helper has, whichever daemon started it.
    pub(super) fn new_tag(&self) -> String {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let Self {
            plugin,
            helper,
            kind,
            guest,
        } = self;
        format!("xenplug:{plugin}/{helper}/{kind}/{guest}:{:x}", since.as_micros())
    }
}
