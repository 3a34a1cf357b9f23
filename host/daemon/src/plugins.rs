//! The plugins of a configuration: all loaded and checked, or an error that names file and line.

use std::sync::Arc;

use anyhow::{Context, bail};
use tracing::info;
use xenplug_runtime::{Cache, Compiler, Engine, Plugin, SharedResources};
use xenplug_system::Platform;

use crate::{
    config::{self, Config},
    context::{Plugins, Serving},
};

/// The word that makes this program the compiler of components, see `main`.
pub(crate) const COMPILE: &str = "compile-component";

/// What loading takes.
pub(crate) struct Loader {
    pub(crate) engine: Engine,
    pub(crate) cache: Cache,
    pub(crate) system: Platform,
    pub(crate) shared: Arc<SharedResources>,
}

impl Loader {
    pub(crate) fn new(config: &Config, system: Platform, shared: Arc<SharedResources>) -> anyhow::Result<Self> {
        let compiler = Compiler::Process {
            program: std::env::current_exe().context("this program cannot find itself")?,
            arguments: vec![COMPILE.to_owned()],
        };
        let cache = Cache::open(&config.paths.cache, compiler)
            .with_context(|| format!("the cache of compiled plugins, {}", config.paths.cache.display()))?;
        Ok(Self {
            engine: Engine::new()?,
            cache,
            system,
            shared,
        })
    }

    /// Loads every plugin. Blocks; see [`Plugin::load`].
    pub(crate) fn load(&self, config: Config) -> anyhow::Result<Plugins> {
        let serving = config
            .plugins
            .into_iter()
            .map(|plugin| self.one(plugin))
            .collect::<anyhow::Result<_>>()?;
        Ok(Plugins {
            serving,
            quarantine: config.quarantine,
            release: Arc::new(config.release),
        })
    }

    fn one(&self, configured: config::Plugin) -> anyhow::Result<Serving> {
        let place = configured.place;
        let name = configured.spec.name.clone();
        let plugin = Plugin::load(&self.engine, &self.cache, &self.system, &self.shared, configured.spec)
            .with_context(|| format!("{place}: plugin.{name} cannot be loaded"))?;
        for kind in &configured.kinds {
            if !plugin.kinds().iter().any(|served| served == kind.as_str()) {
                bail!(
                    "{place}: plugin.{name} is to serve kind \"{kind}\", but says that it serves only {:?}; \
                     correct its kinds",
                    plugin.kinds()
                );
            }
        }
        info!(plugin = name, summary = plugin.summary(), "loaded");
        Ok(Serving {
            plugin: Arc::new(plugin),
            kinds: configured.kinds,
            scripts: configured.scripts,
        })
    }
}
