//! The plugins of one configuration.

use std::sync::Arc;

use xenplug_runtime::{Grants, Plugin};
use xenplug_xenbus::Kind;

use crate::config::BackoffTimes;

/// A plugin with the kinds and scripts that the operator lets it serve.
pub(crate) struct ServingPlugin {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) scripts: Vec<String>,
}

/// The plugins of one configuration.
pub(crate) struct PluginSet {
    pub(crate) serving: Vec<ServingPlugin>,
    pub(crate) backoff: BackoffTimes,
    /// The authority to release what any plugin acquired, also one that is no longer configured.
    pub(crate) release: Arc<Grants>,
}

impl PluginSet {
    /// Finds the plugin that serves a script for a kind.
    pub(crate) fn find<'a>(&'a self, kind: &'a Kind, script: &str) -> Option<&'a Arc<Plugin>> {
        self.of_kind(kind)
            .find(|serving| serving.scripts.iter().any(|known| known == script))
            .map(|serving| &serving.plugin)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Plugin>> {
        self.serving
            .iter()
            .map(|serving| &serving.plugin)
            .find(|plugin| plugin.name() == name)
    }

    pub(crate) fn of_kind<'a>(&'a self, kind: &'a Kind) -> impl Iterator<Item = &'a ServingPlugin> {
        self.serving.iter().filter(move |serving| serving.kinds.contains(kind))
    }
}
