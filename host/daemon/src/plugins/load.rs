//! Loading of plugins: compiles and checks every component that the configuration names.

use std::sync::Arc;

use anyhow::{Context, bail};
use tracing::info;
use xenplug_runtime::{Cache, Compiler, Engine, Plugin, SharedResources};
use xenplug_system::Platform;

use crate::{
    config::{self, Config},
    plugins::{PluginSet, ServingPlugin},
};

/// The first argument that makes this program compile a component and exit, see `main`.
pub(crate) const COMPILE: &str = "compile-component";

/// Everything that loading a plugin needs.
pub(crate) struct Loader {
    pub(crate) engine: Engine,
    pub(crate) cache: Cache,
    pub(crate) platform: Platform,
    pub(crate) shared: Arc<SharedResources>,
}

impl Loader {
    pub(crate) fn new(config: &Config, platform: Platform, shared: Arc<SharedResources>) -> anyhow::Result<Self> {
        let compiler = Compiler::Process {
            program: std::env::current_exe().context("cannot find this program's own file")?,
            arguments: vec![COMPILE.to_owned()],
        };
        let cache = Cache::open(&config.paths.cache, compiler).with_context(|| {
            format!(
                "cannot use the cache of compiled plugins {}",
                config.paths.cache.display()
            )
        })?;
        Ok(Self {
            engine: Engine::new()?,
            cache,
            platform,
            shared,
        })
    }

    /// Loads every plugin, or returns an error that names file and line. Blocks; see [`Plugin::load`].
    pub(crate) fn load(&self, config: Config) -> anyhow::Result<PluginSet> {
        let serving = config
            .plugins
            .into_iter()
            .map(|plugin| self.load_one(plugin))
            .collect::<anyhow::Result<_>>()?;
        Ok(PluginSet {
            serving,
            backoff: config.backoff,
            release: Arc::new(config.release),
        })
    }

    fn load_one(&self, configured: config::Plugin) -> anyhow::Result<ServingPlugin> {
        let location = configured.location;
        let name = configured.spec.name.clone();
        let plugin = Plugin::load(&self.engine, &self.cache, &self.platform, &self.shared, configured.spec)
            .with_context(|| format!("{location}: cannot load plugin.{name}"))?;
        for kind in &configured.kinds {
            if !plugin.kinds().iter().any(|served| served == kind.as_str()) {
                bail!(
                    "{location}: plugin.{name} is configured for kind \"{kind}\", but its component serves only {:?}; \
                     correct its kinds",
                    plugin.kinds()
                );
            }
        }
        info!(plugin = name, "loaded plugin {name}: {}", plugin.summary());
        Ok(ServingPlugin {
            plugin: Arc::new(plugin),
            kinds: configured.kinds,
            scripts: configured.scripts,
        })
    }
}
