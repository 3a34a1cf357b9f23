//! A plugin: a component, linked against what is granted, and its calls, each on a fresh instance.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use tokio::{runtime::Handle, time::timeout_at};
use tracing::warn;
use wasmtime::{Store, Trap, UpdateDeadline};
use xenplug_system::Platform;

pub use crate::event::Cancel;
use crate::{
    Cache, CacheError, Connection, Device, DeviceError, DeviceResources, Engine, Grants, Interface, Limits,
    SharedResources,
    bindings::{Plugin as Bindings, PluginPre, exports::xen::hotplug::handler, xen::hotplug::types},
    clean,
    event::{Context, Event, Stop, Subject},
    hooks,
    manifest::{self, ManifestError},
};

/// Bytes of the longest `hotplug-error`.
const ERROR_LINE: usize = 512;

/// What the operator says of a plugin.
#[derive(Debug)]
pub struct PluginSpec {
    /// Its name: that of its table.
    pub name: String,
    /// The component's file.
    pub component: PathBuf,
    /// What it may use.
    pub grants: Grants,
    /// How much.
    pub limits: Limits,
    /// Its own settings, tables flattened with dots.
    pub config: HashMap<String, String>,
}

/// Why a plugin cannot be loaded. The message names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read or compiled.
    #[error("{component}: {cause}", component = .component.display())]
    Component {
        /// The component's file.
        component: PathBuf,
        /// What is wrong with it.
        cause: CacheError,
    },
    /// It does not fit what is granted.
    #[error("{component}: {cause}", component = .component.display())]
    Manifest {
        /// The component's file.
        component: PathBuf,
        /// What does not fit.
        cause: ManifestError,
    },
    /// It has the right names with the wrong types, or a memory larger than its limit.
    #[error("{component}: it does not fit xen:hotplug 0.1: {reason}", component = .component.display())]
    Link {
        /// The component's file.
        component: PathBuf,
        /// In wasmtime's words.
        reason: String,
    },
    /// It could not say what it is.
    #[error("{component}: its describe function failed: {fault}", component = .component.display())]
    Describe {
        /// The component's file.
        component: PathBuf,
        /// What happened.
        fault: Fault,
    },
}

/// Why an event failed. The message is one line, fit for `hotplug-error` after the plugin's name.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The handler says that what it needs is in use.
    #[error("{0}")]
    Busy(String),
    /// The handler says why it cannot.
    #[error("{0}")]
    Refused(String),
    /// The handler answered with something that is not published.
    #[error("{0}")]
    Answer(#[from] DeviceError),
    /// The handler trapped.
    #[error("the plugin crashed: {0}")]
    Trapped(String),
    /// The handler was stopped at one of its limits.
    #[error("the plugin {0}")]
    Stopped(String),
    /// The handler was stopped as nobody wants what it does any longer.
    #[error("the plugin {0}")]
    Cancelled(String),
}

impl Fault {
    /// Whether it is the plugin's own: what it says of a device is not, and neither is that it was told to stop.
    pub fn is_the_plugins(&self) -> bool {
        match self {
            Self::Busy(_) | Self::Refused(_) | Self::Cancelled(_) => false,
            Self::Answer(_) | Self::Trapped(_) | Self::Stopped(_) => true,
        }
    }

    fn of(error: types::Error) -> Self {
        let line = |text: String| clean(&text, ERROR_LINE);
        match error {
            types::Error::Busy(what) => Self::Busy(line(what)),
            types::Error::InvalidParams(types::BadParam { key, cause }) => {
                Self::Refused(line(format!("{}: {cause}", clean(&key, 64))))
            }
            types::Error::NotFound(what)
            | types::Error::Denied(what)
            | types::Error::Unavailable(what)
            | types::Error::Other(what) => Self::Refused(line(what)),
        }
    }

    /// `refused`: whether it was refused memory before.
    fn of_trap(error: &wasmtime::Error, limits: &Limits, refused: bool) -> Self {
        if let Some(stop) = error.downcast_ref::<Stop>() {
            return Self::Stopped(match stop {
                Stop::Deadline => format!("{stop} of {:?}", limits.deadline),
                Stop::Calls => format!("{stop} ({})", limits.calls),
                Stop::Handles => format!("{stop} ({})", Limits::HANDLES),
                Stop::Effects => format!("{stop} ({})", Limits::EFFECTS),
                Stop::Cancelled => return Self::Cancelled(stop.to_string()),
            });
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::Stopped(format!("{} of {:?}", Stop::Deadline, limits.deadline)),
            Some(trap) if refused => Self::Trapped(format!(
                "{trap}, after it was refused more than its {} KiB of memory",
                limits.memory >> 10
            )),
            Some(trap) => Self::Trapped(trap.to_string()),
            // Around the cause is where in the component it was, without names.
            None => Self::Trapped(clean(&error.root_cause().to_string(), ERROR_LINE / 2)),
        }
    }
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
    /// Loads a plugin: compiles or finds it in the cache, checks its imports against the grants, links it, and asks it
    /// what it is. Blocks; call it within a tokio runtime, but not from one of its tasks.
    pub fn load(
        engine: &Engine,
        cache: &Cache,
        system: &Platform,
        shared: &Arc<SharedResources>,
        spec: PluginSpec,
    ) -> Result<Self, LoadError> {
        let path = spec.component;
        let (component, digest) = cache.load(engine, &path).map_err(|cause| LoadError::Component {
            component: path.clone(),
            cause,
        })?;
        let imports = manifest::check(engine, &component, &spec.grants).map_err(|cause| LoadError::Manifest {
            component: path.clone(),
            cause,
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
                system: system.clone(),
                grants: spec.grants,
                shared: Arc::clone(shared),
                config: spec.config,
                limits: spec.limits,
            }),
        };
        let (_, described) = plugin.event(None, &Cancel::default(), async |bindings, store| {
            bindings.xen_hotplug_handler().call_describe(store).await
        });
        plugin.description = described.map_err(|fault| LoadError::Describe { component: path, fault })?;
        Ok(plugin)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// What tells its component from any other: a digest of it.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// Its one line for people.
    pub fn summary(&self) -> String {
        clean(&self.description.summary, 200)
    }

    /// The kinds of backend it says it serves.
    pub fn kinds(&self) -> &[String] {
        &self.description.kinds
    }

    /// The scripts it says it stands in for.
    pub fn scripts(&self) -> &[String] {
        &self.description.scripts
    }

    /// Whether its `disconnect` does something.
    pub fn disconnects(&self) -> bool {
        self.description.disconnects
    }

    /// The granted interfaces it imports.
    pub fn imports(&self) -> &[Interface] {
        &self.imports
    }

    /// What it is granted.
    pub fn grants(&self) -> &Grants {
        &self.context.grants
    }

    /// How long an event may take.
    pub fn limits(&self) -> &Limits {
        &self.context.limits
    }

    /// Connects a device. What was acquired on the way, also on the way to a failure, is in the resources that comes back.
    ///
    /// Blocks for at most the plugin's deadline, unless the kernel does not come back from a call: run it on a thread
    /// for blocking work, within a tokio runtime.
    pub fn connect(
        &self,
        device: Arc<Device>,
        resources: DeviceResources,
        cancel: &Cancel,
    ) -> (DeviceResources, Result<Connection, Fault>) {
        let guest = device.to_guest();
        let subject = Subject {
            device: Arc::clone(&device),
            resources,
        };
        let (resources, answer) = self.event(Some(subject), cancel, async |bindings, store| {
            bindings.xen_hotplug_handler().call_connect(store, &guest).await
        });
        // A subject went in, so one comes out.
        let mut resources = resources.expect("an event with a device keeps it");
        resources.settle(&self.context.shared);
        let answer = answer.and_then(|answer| match answer {
            Ok(connection) => Ok(Connection::from_guest(connection)?),
            Err(error) => Err(Fault::of(error)),
        });
        let answer = answer.and_then(|connection| {
            hooks::run(&self.context, &device, &mut resources)?;
            Ok(connection)
        });
        (resources, answer)
    }

    /// Lets the handler end things in an order, before what the device holds is given back. Blocks as `connect` does.
    pub fn disconnect(
        &self,
        device: Arc<Device>,
        resources: DeviceResources,
        cancel: &Cancel,
    ) -> (DeviceResources, Result<(), Fault>) {
        let guest = device.to_guest();
        let (resources, answer) = self.event(Some(Subject { device, resources }), cancel, async |bindings, store| {
            bindings.xen_hotplug_handler().call_disconnect(store, &guest).await
        });
        (
            resources.expect("an event with a device keeps it"),
            answer.and_then(|answer| answer.map_err(Fault::of)),
        )
    }

    /// One call on a fresh instance, under every limit.
    fn event<T>(
        &self,
        subject: Option<Subject>,
        cancel: &Cancel,
        call: impl AsyncFnOnce(&Bindings, &mut Store<Event>) -> wasmtime::Result<T>,
    ) -> (Option<DeviceResources>, Result<T, Fault>) {
        let limits = &self.context.limits;
        let event = Event::new(Arc::clone(&self.context), subject, cancel.clone());
        let deadline = event.deadline;
        let mut store = Store::new(self.engine.wasmtime(), event);
        store.limiter(|event| &mut event.memory);
        store.set_hostcall_fuel(Limits::CALL_BYTES);
        store.set_max_component_handles(Limits::HANDLES);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            store.data().may_go_on()?;
            Ok(UpdateDeadline::Continue(1))
        });
        let running = self.engine.run();
        // The guest is stopped by the clock, our own host calls watch the deadline, and what waits in WASI (a guest
        // that sleeps) is dropped by the timeout.
        let outcome = Handle::current().block_on(timeout_at(deadline.into(), async {
            let bindings = self.linked.instantiate_async(&mut store).await?;
            call(&bindings, &mut store).await
        }));
        drop(running);
        let result = match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Fault::of_trap(&error, limits, store.data().memory.refused)),
            Err(_elapsed) => Err(Fault::Stopped(format!("{} of {:?}", Stop::Deadline, limits.deadline))),
        };
        let event = store.into_data();
        if event.log_lines > limits.log_lines {
            let dropped = event.log_lines - limits.log_lines;
            warn!(plugin = self.name(), dropped, "the plugin logged more than it may");
        }
        (event.subject.map(|subject| subject.resources), result)
    }
}

#[cfg(test)]
mod tests;
