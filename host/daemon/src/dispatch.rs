//! From what changes in the store and in the kernel to the devices that have to look again.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::interval};
use tracing::{info, warn};
use xenplug_system::network::IfName;
use xenplug_xenbus::{DeviceInstance, DeviceKey, DomId, Kind, Phase, WatchLevel, WatchedPath};
use xenplug_xenstore::{Error, Event, Path, Watch};

use crate::{
    context::DaemonContext,
    foreign_disks::{ForeignDisks, Question},
    registry::Registry,
};

/// How often everything is looked at without cause, should an event have been lost after all.
const RESYNC: Duration = Duration::from_secs(300);

/// What the dispatch follows.
pub(crate) struct Dispatch {
    host: Arc<DaemonContext>,
    backends: Watch,
    links: mpsc::UnboundedReceiver<Option<IfName>>,
    foreign_disks: ForeignDisks,
    asked: mpsc::UnboundedReceiver<Question>,
}

impl Dispatch {
    /// Sets the watches. From here on nothing is missed.
    pub(crate) async fn begin(
        host: Arc<DaemonContext>,
        asked: mpsc::UnboundedReceiver<Question>,
    ) -> Result<Self, Error> {
        let backends = host.client.watch(&root(&host)).await?;
        let links = host.workers.links(&host.system.network);
        Ok(Self {
            foreign_disks: ForeignDisks::of(host.own),
            host,
            backends,
            links,
            asked,
        })
    }

    /// Dispatches until the daemon ends, or the store refuses the watch.
    pub(crate) async fn run(mut self) {
        let domains = Arc::clone(&self.host.domains);
        let host = Arc::clone(&self.host);
        let follow = domains.follow(|domain| host.registry.wake_all(|part| part.device.frontend == domain));
        tokio::pin!(follow);
        let mut resync = interval(RESYNC);
        let mut links_open = true;
        loop {
            // Who has the least to say comes first, so that nobody is talked down by what guests write.
            tokio::select! {
                biased;
                () = self.host.draining.cancelled() => return,
                _ = resync.tick() => self.resync().await,
                () = &mut follow => {}
                Some(question) = self.asked.recv() => self.answer(question).await,
                link = self.links.recv(), if links_open => match link {
                    Some(Some(name)) => self.appeared(&name),
                    Some(None) => self.host.registry.wake_all(|part| part.device.kind.needs_netdev()),
                    None => links_open = false,
                },
                event = self.backends.next() => match event {
                    Some(event) => self.told(event).await,
                    None => {
                        warn!("xenstored no longer lets this domain watch its backends");
                        return;
                    }
                },
            }
        }
    }

    /// The watch tells something.
    async fn told(&mut self, event: Event) {
        match event {
            Event::Changed(path) => self.changed(&path).await,
            Event::Resync => self.resync().await,
        }
    }

    /// Somebody wants to know who uses a disk, as of now.
    async fn answer(&mut self, question: Question) {
        // What was written before the store answers this is told before as well.
        let marked = self.host.client.read(&root(&self.host)).await;
        if marked.is_err_and(|error| !error.is_not_found()) {
            return;
        }
        while let Some(event) = self.backends.try_next() {
            self.told(event).await;
        }
        let host = Arc::clone(&self.host);
        let ours = |key: &DeviceKey| {
            host.registry
                .phase(&DeviceInstance::main(key.clone()))
                .is_some_and(Phase::holds)
        };
        self.foreign_disks.answer(&host.client, ours, question).await;
    }

    /// A node at or below `backend` has changed.
    async fn changed(&mut self, path: &Path) {
        let Ok(watched) = WatchedPath::parse(path.as_str(), self.host.own) else {
            return;
        };
        if watched.backend != self.host.own {
            return;
        }
        if let WatchLevel::Device { key, leaf } = &watched.level {
            self.foreign_disks.changed(key, *leaf);
        }
        match &watched.level {
            WatchLevel::Device {
                key,
                leaf: None | Some("state" | "online" | "hotplug-status"),
            } => self.host.requests.wake_of(self.host.own, key),
            WatchLevel::Device { .. } => {}
            _ => self.host.requests.wake_all(),
        }
        match watched.level {
            WatchLevel::Device {
                key,
                leaf: None | Some("state" | "online"),
            } => Registry::wake(&self.host, &key),
            // Emptied by the operator, it calls for another try; written by us, it tells nothing.
            WatchLevel::Device {
                key,
                leaf: Some("hotplug-status"),
            } => {
                let rests = matches!(
                    self.host.registry.phase(&DeviceInstance::main(key.clone())),
                    Some(Phase::Failed { .. } | Phase::Foreign | Phase::Waiting)
                );
                if rests {
                    Registry::wake(&self.host, &key);
                }
            }
            WatchLevel::Device { .. } => {}
            WatchLevel::Domain(kind, domain) => {
                self.host
                    .registry
                    .wake_all(|part| part.device.kind == kind && part.device.frontend == domain);
                self.discover_domain(&kind, domain).await;
            }
            WatchLevel::Kind(kind) => {
                self.host.registry.wake_all(|part| part.device.kind == kind);
                self.discover_kind(&kind).await;
            }
            WatchLevel::Root => self.resync().await,
        }
    }

    /// A link has appeared: netback's, perhaps, or QEMU's.
    fn appeared(&self, name: &IfName) {
        if name.as_str().starts_with("vif") {
            self.host
                .registry
                .wake_all(|part| part.device.kind.needs_netdev() && part.link() == name.as_str());
        }
    }

    /// Looks at everything: what is known, and what is there.
    async fn resync(&mut self) {
        self.foreign_disks.all_changed();
        self.host.registry.wake_all(|_| true);
        for kind in self.children(&root(&self.host)).await {
            if let Ok(kind) = kind.parse() {
                self.discover_kind(&kind).await;
            }
        }
        let used: Vec<DomId> = self
            .host
            .registry
            .views()
            .iter()
            .map(|(part, _)| part.device.frontend)
            .collect();
        self.host.domains.keep(|domain| used.contains(&domain));
    }

    async fn discover_kind(&mut self, kind: &Kind) {
        let Ok(path) = root(&self.host).join(kind.as_str()) else {
            return;
        };
        for domain in self.children(&path).await {
            if let Ok(domain) = domain.parse() {
                self.discover_domain(kind, domain).await;
            }
        }
    }

    async fn discover_domain(&mut self, kind: &Kind, domain: DomId) {
        let Ok(path) = root(&self.host).join(&format!("{kind}/{domain}")) else {
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
                Registry::wake(&self.host, &key);
            }
        }
    }

    /// The children of a directory. One that is not there has none; one that cannot be read now is looked at later.
    async fn children(&self, path: &Path) -> Vec<String> {
        match self.host.client.directory(path).await {
            Ok(children) => children,
            Err(error) => {
                if !error.is_not_found() {
                    info!(%path, %error, "not listed now");
                }
                Vec::new()
            }
        }
    }
}

/// Where the backends of this domain are.
pub(crate) fn root(host: &DaemonContext) -> Path {
    format!("/local/domain/{}/backend", host.own)
        .parse()
        .expect("a path with a number in it is a path")
}
