//! A plugin: a component, linked against its grants, and its calls, each on a fresh instance.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use tokio::{runtime::Handle, time::timeout_at};
use tracing::warn;
use wasmtime::{Store, UpdateDeadline};
use xenplug_system::{Platform, lock::ScriptLock};

use crate::{
    bindings::{Plugin as Bindings, PluginPre, exports::xen::hotplug::handler},
    cache::{Cache, CacheError},
    call_error::Stop,
    device::{Connection, Device},
    engine::Engine,
    event::{Cancel, Context, Event, Subject},
    fault::{ERROR_LINE, Fault},
    grants::{Grants, Interface},
    hooks,
    limits::Limits,
    manifest::{self, ManifestError},
    resource::DeviceResources,
    shared::SharedResources,
    text::clean,
};

/// The operator's configuration of a plugin.
#[derive(Debug)]
pub struct PluginSpec {
    /// The name: that of the plugin's table.
    pub name: String,
    /// The component's file.
    pub component: PathBuf,
    /// The authority over the host.
    pub grants: Grants,
    /// The limits of each event.
    pub limits: Limits,
    /// The plugin's own settings, tables flattened with dots.
    pub config: HashMap<String, String>,
}

/// A plugin that cannot be loaded. The message names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read or compiled.
    #[error("{}", .component.display())]
    Component {
        /// The component's file.
        component: PathBuf,
        /// The cause.
        source: CacheError,
    },
    /// The component does not fit the grants.
    #[error("{}", .component.display())]
    Manifest {
        /// The component's file.
        component: PathBuf,
        /// The cause.
        source: ManifestError,
    },
    /// The component has the right names with the wrong types, or a memory larger than its limit.
    #[error("{}: it does not fit xen:hotplug 0.1: {reason}", .component.display())]
    Link {
        /// The component's file.
        component: PathBuf,
        /// The cause, as wasmtime tells it.
        reason: String,
    },
    /// The handler did not describe itself.
    #[error("{}: its describe function failed", .component.display())]
    Describe {
        /// The component's file.
        component: PathBuf,
        /// The cause.
        source: Fault,
    },
}

/// The outcome of a handler that connected its device.
#[derive(Debug)]
pub struct Connected {
    /// The nodes to publish.
    pub connection: Connection,
    /// Keeps the original scripts out, if the handler checked something under their lock. To be dropped once the device
    /// is published, or will not be.
    pub script_lock: Option<ScriptLock>,
}

/// A plugin, ready to serve.
pub struct Plugin {
    engine: Engine,
    component: String,
    linked: PluginPre<Event>,
    context: Arc<Context>,
    imports: Vec<Interface>,
    description: handler::Description,
}

impl Plugin {
    /// Loads a plugin: compiles it or finds it in the cache, checks its imports against the grants, links it, and calls
    /// its `describe`. Blocks; call it within a tokio runtime, but not from one of its tasks.
    pub fn load(
        engine: &Engine,
        cache: &Cache,
        platform: &Platform,
        shared: &Arc<SharedResources>,
        spec: PluginSpec,
    ) -> Result<Self, LoadError> {
        let path = spec.component;
        let (component, digest) = cache.load(engine, &path).map_err(|source| LoadError::Component {
            component: path.clone(),
            source,
        })?;
        let imports = manifest::check(engine, &component, &spec.grants).map_err(|source| LoadError::Manifest {
            component: path.clone(),
            source,
        })?;
        let link = |error: wasmtime::Error| LoadError::Link {
            component: path.clone(),
            reason: clean(&format!("{error:#}"), ERROR_LINE),
        };
        let linked = manifest::linker(engine, &spec.grants)
            .and_then(|linker| linker.instantiate_pre(&component))
            .and_then(PluginPre::new)
            .map_err(link)?;
        let mut plugin = Self {
            engine: engine.clone(),
            component: digest,
            linked,
            imports,
            description: handler::Description {
                summary: String::new(),
                kinds: Vec::new(),
                scripts: Vec::new(),
                disconnects: false,
            },
            context: Arc::new(Context {
                name: spec.name,
                platform: platform.clone(),
                grants: spec.grants,
                shared: Arc::clone(shared),
                config: spec.config,
                limits: spec.limits,
            }),
        };
        let (_, described) = plugin.event(None, &Cancel::default(), async |bindings, store| {
            bindings.xen_hotplug_handler().call_describe(store).await
        });
        plugin.description = described.map_err(|source| LoadError::Describe {
            component: path,
            source,
        })?;
        Ok(plugin)
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// A digest of the component, by which it differs from any other.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// The handler's own line for people.
    pub fn summary(&self) -> String {
        clean(&self.description.summary, 200)
    }

    /// The kinds of backend that the handler says it serves.
    pub fn kinds(&self) -> &[String] {
        &self.description.kinds
    }

    /// The scripts that the handler says it replaces.
    pub fn scripts(&self) -> &[String] {
        &self.description.scripts
    }

    /// Returns whether the handler's `disconnect` does something.
    pub fn disconnects(&self) -> bool {
        self.description.disconnects
    }

    /// The granted interfaces that the component imports.
    pub fn imports(&self) -> &[Interface] {
        &self.imports
    }

    /// The plugin's grants.
    pub fn grants(&self) -> &Grants {
        &self.context.grants
    }

    /// The limits of each event.
    pub fn limits(&self) -> &Limits {
        &self.context.limits
    }

    /// Connects a device. The returned resources hold everything that was acquired on the way, also on the way to a
    /// failure.
    ///
    /// Blocks for at most the plugin's deadline, unless the kernel does not come back from a call: run it on a thread
    /// for blocking work, within a tokio runtime.
    pub fn connect(
        &self,
        device: Arc<Device>,
        resources: DeviceResources,
        cancel: &Cancel,
    ) -> (DeviceResources, Result<Connected, Fault>) {
        let guest = device.to_guest();
        let subject = Subject {
            device: Arc::clone(&device),
            resources,
            script_lock: None,
        };
        let (subject, answer) = self.event(Some(subject), cancel, async |bindings, store| {
            bindings.xen_hotplug_handler().call_connect(store, &guest).await
        });
        // A subject went in, so one comes out.
        let Subject {
            mut resources,
            script_lock,
            ..
        } = subject.expect("an event with a device keeps it");
        resources.handler_returned(&self.context.shared);
        let connected = answer.and_then(|answer| {
            let connection = Connection::from_guest(answer.map_err(Fault::of)?)?;
            hooks::run(&self.context, &device, &mut resources)?;
            Ok(Connected {
                connection,
                script_lock,
            })
        });
        (resources, connected)
    }

    /// Calls the handler's `disconnect`, so that it may end things in an order before what the device holds is
    /// released. Blocks as [`Plugin::connect`] does.
    pub fn disconnect(
        &self,
        device: Arc<Device>,
        resources: DeviceResources,
        cancel: &Cancel,
    ) -> (DeviceResources, Result<(), Fault>) {
        let guest = device.to_guest();
        let subject = Subject {
            device,
            resources,
            script_lock: None,
        };
        let (subject, answer) = self.event(Some(subject), cancel, async |bindings, store| {
            bindings.xen_hotplug_handler().call_disconnect(store, &guest).await
        });
        (
            subject.expect("an event with a device keeps it").resources,
            answer.and_then(|answer| answer.map_err(Fault::of)),
        )
    }

    /// Makes one call on a fresh instance, under every limit.
    fn event<T>(
        &self,
        subject: Option<Subject>,
        cancel: &Cancel,
        call: impl AsyncFnOnce(&Bindings, &mut Store<Event>) -> wasmtime::Result<T>,
    ) -> (Option<Subject>, Result<T, Fault>) {
        let limits = &self.context.limits;
        let event = Event::new(Arc::clone(&self.context), subject, cancel.clone());
        let deadline = event.deadline;
        let mut store = Store::new(self.engine.wasmtime(), event);
        store.limiter(|event| &mut event.memory);
        store.set_hostcall_fuel(Limits::CALL_BYTES);
        store.set_max_component_handles(Limits::HANDLES);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            store.data().check()?;
            Ok(UpdateDeadline::Continue(1))
        });
        let running = self.engine.run();
        // The clock stops the guest, host calls watch the deadline, and the timeout drops a call that waits in WASI (a
        // guest that sleeps).
        let outcome = Handle::current().block_on(timeout_at(deadline.into(), async {
            let bindings = self.linked.instantiate_async(&mut store).await?;
            call(&bindings, &mut store).await
        }));
        drop(running);
        let result = match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Fault::of_trap(&error, limits, store.data().memory.refused)),
            Err(_elapsed) => Err(Fault::at(Stop::Deadline, limits)),
        };
        let event = store.into_data();
        if event.log_lines > limits.log_lines {
            let dropped = event.log_lines - limits.log_lines;
            warn!(plugin = self.name(), dropped, "the plugin logged more than it may");
        }
        (event.subject, result)
    }
}

#[cfg(test)]
mod tests;
