//! Device requests: what toolstacks ask this driver domain for under `/hotplug` (`docs/hotplug-protocol.md`).
//!
//! Each request has a task ([`task`]) that reads it whenever something may have changed, and does what the protocol says is
//! next. The device's own task runs beside it, as for a device that libxl made: the request's task creates and removes
//! directories, the device's task serves what is there.

mod act;
mod context;
mod read;
mod task;

use std::{sync::Arc, time::Duration};

use tokio::time::interval;
use tracing::{info, warn};
use xenplug_hotplug::{
    Class, RequestPath, driver_domain,
    request::{REQUEST_NODE, VERSION},
};
use xenplug_xenbus::Kind;
use xenplug_xenstore::{Error, Event, Path, Reply, Request};

use self::context::RequestContext;
use crate::{
    context::DaemonContext,
    device::Registry,
    request_index::RequestIndex,
    retry::{is_final, retry_store},
};

/// The interval at which every request is read without cause: when a guest's directories are removed, this domain gets no
/// event, as it may not read them then (tools/xenstored/watch.c, `watch_permitted`).
const POLL: Duration = Duration::from_secs(5);

/// The device requests of this driver domain.
pub(crate) struct DeviceRequests {
    context: Arc<RequestContext>,
    /// The directory of this driver domain's requests.
    root: Path,
}

impl DeviceRequests {
    pub(crate) fn new(daemon: Arc<DaemonContext>, registry: Arc<Registry>, index: Arc<RequestIndex>) -> Self {
        let root = driver_domain(daemon.own);
        Self {
            root: root.parse().expect("a path with a number in it is a path"),
            context: Arc::new(RequestContext {
                daemon,
                registry,
                index,
            }),
        }
    }

    /// Follows requests until the daemon ends. Recovery comes before it: what an earlier daemon has left is held by then.
    pub(crate) async fn follow(self) {
        let daemon = &self.context.daemon;
        let waits = || !daemon.draining.is_cancelled();
        let mut watch = match retry_store(waits, || daemon.store.watch(&self.root)).await {
            Ok(watch) => watch,
            Err(error) => {
                warn!(
                    "device requests are not served, as {} cannot be watched: {error}",
                    self.root
                );
                return;
            }
        };
        let mut polls = interval(POLL);
        loop {
            tokio::select! {
                event = watch.next() => match event {
                    Some(Event::Changed(path)) => self.changed(&path).await,
                    Some(Event::Resync) => self.discover().await,
                    None => {
                        warn!("xenstored no longer lets this domain watch {}", self.root);
                        return;
                    }
                },
                _ = polls.tick() => self.context.index.0.wake_where(|_| true),
                () = daemon.draining.cancelled() => return,
            }
        }
    }

    /// Handles a change of a node at or below this domain's directory.
    async fn changed(&self, path: &Path) {
        let names: Vec<&str> = path.components().collect();
        let request = format!("/{}", names[..names.len().min(6)].join("/")).parse();
        match (request, &names[..]) {
            (Ok(request), _) => self.wake(request),
            // This is the first event, and the one of a toolstack that prepares the domain.
            (_, [_, _, _] | [_, _, _, "daemon"]) => self.discover().await,
            // All requests of a guest or of a class are gone.
            _ => {
                let below = format!("{path}/");
                let index = &self.context.index.0;
                index.wake_where(|request| request.to_string().starts_with(&below));
            }
        }
    }

    /// Wakes a request, also one that is not known yet.
    fn wake(&self, path: RequestPath) {
        let context = &self.context;
        let start = |slot| {
            let task = task::run(Arc::clone(context), path, slot);
            context.daemon.tasks.spawn_local(task);
        };
        context.index.0.get_or_start(&path, start).wake();
    }

    /// Announces that requests are served, and wakes all that exist.
    async fn discover(&self) {
        self.context.index.0.wake_where(|_| true);
        if let Err(error) = self.announce_and_wake().await
            && is_final(&error)
        {
            warn!("cannot read the device requests below {}: {error}", self.root);
        }
    }

    async fn announce_and_wake(&self) -> Result<(), Error> {
        let daemon = &self.context.daemon;
        if !act::announce(&daemon.store, daemon.own, &VERSION.to_string()).await? {
            return Ok(());
        }
        for class in [Class::Vbd, Class::Vif] {
            for path in below(daemon, &self.root.join(class.as_str())?).await? {
                if let Ok(path) = path.as_str().parse() {
                    self.wake(path);
                }
            }
            for kind in class.kinds() {
                for path in self.made_for_requests(kind).await? {
                    self.wake(path);
                }
            }
        }
        info!(domain = %daemon.own, "device requests to domain {} are served", daemon.own);
        Ok(())
    }

    /// Lists the requests that backends were made for, of which some may be gone.
    async fn made_for_requests(&self, kind: &Kind) -> Result<Vec<RequestPath>, Error> {
        let daemon = &self.context.daemon;
        let backends = below(daemon, &daemon.backend_root().join(kind.as_str())?).await?;
        let reads = backends.iter().map(|path| path.join(REQUEST_NODE).map(Request::Read));
        let replies = daemon.store.batch(reads.collect::<Result<_, _>>()?).await?;
        let made = backends.iter().zip(replies).filter_map(|(path, reply)| {
            let device = matches!(reply, Ok(Reply::Value(_))).then(|| path.components().skip(4).collect::<Vec<_>>());
            RequestPath::of(daemon.own, &device?.join("/").parse().ok()?)
        });
        Ok(made.collect())
    }
}

/// Lists the directories two levels below one: those of devices, by guest.
async fn below(daemon: &DaemonContext, root: &Path) -> Result<Vec<Path>, Error> {
    let mut all = Vec::new();
    for guest in children(daemon, root).await? {
        let guest = root.join(&guest)?;
        for device in children(daemon, &guest).await? {
            all.push(guest.join(&device)?);
        }
    }
    Ok(all)
}

/// Lists the names in a directory. A directory that is absent or may not be read has none.
async fn children(daemon: &DaemonContext, path: &Path) -> Result<Vec<String>, Error> {
    match daemon.store.directory(path).await {
        Err(error) if error.is_not_found() || error.is_denied() => Ok(Vec::new()),
        names => names,
    }
}
