//! The dispatch: from changes in the store and in the kernel to the devices that have to be read again.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::interval};
use tracing::{info, warn};
use xenplug_system::network::IfName;
use xenplug_xenbus::{DeviceInstance, DeviceKey, DomId, Kind, Phase, WatchLevel, WatchedPath};
use xenplug_xenstore::{Error, Event, Path, Watch};

use crate::{
    context::DaemonContext,
    device::Registry,
    domains::Domains,
    foreign_disks::{Flushes, ForeignDisks},
    request_index::RequestIndex,
};

/// The interval at which everything is read without cause, in case an event was lost after all.
const RESYNC: Duration = Duration::from_secs(300);

/// The dispatch with everything that it follows and wakes.
pub(crate) struct Dispatch {
    pub(crate) context: Arc<DaemonContext>,
    pub(crate) domains: Arc<Domains>,
    pub(crate) foreign_disks: Arc<ForeignDisks>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) requests: Arc<RequestIndex>,
    pub(crate) sources: Sources,
}

/// The sources of events. From their creation on nothing is missed.
pub(crate) struct Sources {
    backends: Watch,
    links: mpsc::UnboundedReceiver<Option<IfName>>,
    flushes: Flushes,
}

impl Sources {
    /// Sets the watches.
    pub(crate) async fn new(context: &DaemonContext, flushes: Flushes) -> Result<Self, Error> {
        Ok(Self {
            backends: context.store.watch(&context.backend_root()).await?,
            links: context.workers.links(&context.platform.network),
            flushes,
        })
    }
}

impl Dispatch {
    /// Dispatches until the daemon ends, or the store refuses the watch.
    pub(crate) async fn run(mut self) {
        let (domains, registry) = (Arc::clone(&self.domains), Arc::clone(&self.registry));
        let follow = domains.follow(|domain| registry.wake_where(|instance| instance.device.frontend == domain));
        tokio::pin!(follow);
        let mut resync = interval(RESYNC);
        let mut links_open = true;
        loop {
            // The rarest source comes first, so that a flood of guests' writes starves none.
            tokio::select! {
                biased;
                () = self.context.draining.cancelled() => return,
                _ = resync.tick() => self.resync().await,
                () = &mut follow => {}
                Some(done) = self.sources.flushes.recv() => {
                    while let Some(event) = self.sources.backends.try_next() {
                        self.backend_event(event).await;
                    }
                    // The question may have been given up.
                    let _ = done.send(());
                }
                link = self.sources.links.recv(), if links_open => match link {
                    Some(Some(name)) => self.link_appeared(&name),
                    Some(None) => self.registry.wake_where(|instance| instance.device.kind.needs_netdev()),
                    None => links_open = false,
                },
                event = self.sources.backends.next() => match event {
                    Some(event) => self.backend_event(event).await,
                    None => {
                        warn!("xenstored no longer lets this domain watch its backends");
                        return;
                    }
                },
            }
        }
    }

    async fn backend_event(&mut self, event: Event) {
        match event {
            Event::Changed(path) => self.changed(&path).await,
            Event::Resync => self.resync().await,
        }
    }

    /// Handles a change of a node at or below `backend`.
    async fn changed(&mut self, path: &Path) {
        let Ok(watched) = WatchedPath::parse(path.as_str(), self.context.own) else {
            return;
        };
        if watched.backend != self.context.own {
            return;
        }
        self.wake_requests(&watched.level);
        match watched.level {
            WatchLevel::Device { key, leaf } => self.device_changed(&key, leaf),
            WatchLevel::Domain(kind, domain) => {
                self.registry
                    .wake_where(|instance| instance.device.kind == kind && instance.device.frontend == domain);
                self.discover_domain(&kind, domain).await;
            }
            WatchLevel::Kind(kind) => {
                self.registry.wake_where(|instance| instance.device.kind == kind);
                self.discover_kind(&kind).await;
            }
            WatchLevel::Root => self.resync().await,
        }
    }

    fn wake_requests(&self, level: &WatchLevel<'_>) {
        match level {
            WatchLevel::Device {
                key,
                leaf: None | Some("state" | "online" | "hotplug-status"),
            } => self.requests.wake_for(self.context.own, key),
            WatchLevel::Device { .. } => {}
            _ => self.requests.0.wake_where(|_| true),
        }
    }

    fn device_changed(&self, key: &DeviceKey, leaf: Option<&str>) {
        self.foreign_disks.changed(key, leaf);
        match leaf {
            None | Some("state" | "online") => self.registry.wake(key),
            // An operator empties it to ask for another try. The daemon's own writes of it change nothing.
            Some("hotplug-status") => {
                let phase = self.registry.phase(&DeviceInstance::main(key.clone()));
                if let Some(Phase::Failed { .. } | Phase::Foreign | Phase::Waiting) = phase {
                    self.registry.wake(key);
                }
            }
            Some(_) => {}
        }
    }

    /// Handles a new link, which may be that of netback or of QEMU.
    fn link_appeared(&self, name: &IfName) {
        if name.as_str().starts_with("vif") {
            self.registry
                .wake_where(|instance| instance.device.kind.needs_netdev() && instance.link() == name.as_str());
        }
    }

    /// Wakes every known device, and discovers those that are not known.
    async fn resync(&mut self) {
        self.foreign_disks.all_changed();
        self.registry.wake_where(|_| true);
        for kind in self.children(&self.context.backend_root()).await {
            if let Ok(kind) = kind.parse() {
                self.discover_kind(&kind).await;
            }
        }
        let views = self.registry.views();
        let used: Vec<DomId> = views.iter().map(|(instance, _)| instance.device.frontend).collect();
        self.domains.keep(|domain| used.contains(&domain));
    }

    async fn discover_kind(&mut self, kind: &Kind) {
        let Ok(path) = self.context.backend_root().join(kind.as_str()) else {
            return;
        };
        for domain in self.children(&path).await {
            if let Ok(domain) = domain.parse() {
                self.discover_domain(kind, domain).await;
            }
        }
    }

    async fn discover_domain(&mut self, kind: &Kind, domain: DomId) {
        let Ok(path) = self.context.backend_root().join(&format!("{kind}/{domain}")) else {
            return;
        };
        for devid in self.children(&path).await {
            if let Ok(devid) = devid.parse() {
                let key = DeviceKey {
                    kind: kind.clone(),
                    frontend: domain,
                    devid,
                };
                self.foreign_disks.changed(&key, None);
                self.registry.wake(&key);
            }
        }
    }

    /// Lists the children of a directory. A directory that is absent has none; one that cannot be read is listed again by
    /// the next resync.
    async fn children(&self, path: &Path) -> Vec<String> {
        match self.context.store.directory(path).await {
            Ok(children) => children,
            Err(error) => {
                if !error.is_not_found() {
                    info!(%path, "cannot list {path} now: {error}");
                }
                Vec::new()
            }
        }
    }
}
