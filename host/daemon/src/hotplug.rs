//! `/hotplug`: what toolstacks ask this driver domain for (`docs/hotplug-protocol.md`).
//!
//! Each request has a task ([`place`]) that looks whenever something may have changed, and does what the protocol says is
//! next. The device's own task runs beside it, as for a device of libxl's: the one makes and removes directories, the other
//! serves what is there.

mod act;
mod read;
mod request_task;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::interval;
use tracing::{info, warn};
use xenplug_hotplug::{
    Class, RequestPath, driver_domain,
    request::{REQUEST_NODE, VERSION},
};
use xenplug_xenbus::{DeviceKey, DomId, Kind};
use xenplug_xenstore::{Error, Event, Path, Reply, Request};

use crate::{
    context::DaemonContext,
    dispatch,
    retry::{is_final, patiently},
};
use request_task::RequestTask;

/// How often every request is looked at without cause: a guest's directories go without a word to this domain, which may
/// not read them then (tools/xenstored/watch.c, `watch_permitted`).
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The requests that are known, each with its task.
#[derive(Default)]
pub(crate) struct Requests {
    places: Mutex<BTreeMap<RequestPath, Arc<RequestTask>>>,
}

impl Requests {
    /// Wakes the request that a device was made for, if it was made for one.
    pub(crate) fn wake_of(&self, own: DomId, device: &DeviceKey) {
        if let Some(place) = self.of(own, device) {
            place.wake();
        }
    }

    /// Wakes all that are known.
    pub(crate) fn wake_all(&self) {
        self.places().values().for_each(|place| place.wake());
    }

    /// Wakes those that are known in a directory.
    fn wake_below(&self, directory: &Path) {
        let below = format!("{directory}/");
        let places = self.places();
        let theirs = places.iter().filter(|(path, _)| path.to_string().starts_with(&below));
        theirs.for_each(|(_, place)| place.wake());
    }

    /// The `vm` node of a device's guest, as the request says that the device was made for. This domain may not read it.
    pub(crate) fn vm(&self, own: DomId, device: &DeviceKey) -> Option<String> {
        self.of(own, device)?.vm(&device.kind)
    }

    /// Whether a device was made for a request.
    pub(crate) fn serve(&self, own: DomId, device: &DeviceKey) -> bool {
        self.of(own, device).is_some_and(|place| place.serves(&device.kind))
    }

    fn of(&self, own: DomId, device: &DeviceKey) -> Option<Arc<RequestTask>> {
        let path = RequestPath::of(own, device)?;
        self.places().get(&path).cloned()
    }

    /// Wakes a request, also one that is not known yet.
    fn wake(host: &Arc<DaemonContext>, path: RequestPath) {
        let mut places = host.requests.places();
        let place = places.entry(path).or_insert_with(|| {
            let place = Arc::new(RequestTask::default());
            host.tasks
                .spawn_local(request_task::run(Arc::clone(host), path, Arc::clone(&place)));
            place
        });
        place.wake();
    }

    /// Forgets a request, unless it was woken meanwhile.
    fn forget(&self, path: RequestPath) -> bool {
        let mut places = self.places();
        if places.get(&path).is_some_and(|place| place.is_woken()) {
            return false;
        }
        places.remove(&path);
        true
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<RequestPath, Arc<RequestTask>>> {
        // Every change is one call of the map's, so a poisoned one is still whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows what is asked until the daemon ends. After recovery: what an earlier daemon has left is held by then.
pub(crate) async fn follow(host: Arc<DaemonContext>) {
    let top = top(&host);
    let mut watch = match patiently(|| !host.draining.is_cancelled(), || host.client.watch(&top)).await {
        Ok(watch) => watch,
        Err(error) => {
            warn!(%error, "requests of toolstacks are not seen");
            return;
        }
    };
    let mut ticks = interval(LOOK_EVERY);
    loop {
        tokio::select! {
            event = watch.next() => match event {
                Some(Event::Changed(path)) => changed(&host, &path).await,
                Some(Event::Resync) => look_around(&host).await,
                None => {
                    warn!("xenstored no longer lets this domain watch {top}");
                    return;
                }
            },
            _ = ticks.tick() => host.requests.wake_all(),
            () = host.draining.cancelled() => return,
        }
    }
}

/// A node at or below this domain's directory has changed.
async fn changed(host: &Arc<DaemonContext>, path: &Path) {
    let names: Vec<&str> = path.components().collect();
    let request = format!("/{}", names[..names.len().min(6)].join("/")).parse();
    match (request, &names[..]) {
        (Ok(request), _) => Requests::wake(host, request),
        // The first event, and whenever the domain is prepared.
        (_, [_, _, _] | [_, _, _, "daemon"]) => look_around(host).await,
        // All of a guest have gone, or of a class.
        _ => host.requests.wake_below(path),
    }
}

/// Tells the toolstack that its requests are served, and takes up all that there are.
async fn look_around(host: &Arc<DaemonContext>) {
    host.requests.wake_all();
    if let Err(error) = take_up(host).await
        && is_final(&error)
    {
        warn!(%error, "the requests of toolstacks could not be looked at");
    }
}

async fn take_up(host: &Arc<DaemonContext>) -> Result<(), Error> {
    if !act::announce(&host.client, host.own, &VERSION.to_string()).await? {
        return Ok(());
    }
    for class in [Class::Vbd, Class::Vif] {
        for path in below(host, &top(host).join(class.as_str())?).await? {
            if let Ok(path) = path.as_str().parse() {
                Requests::wake(host, path);
            }
        }
        for kind in class.kinds() {
            for path in orphans(host, kind).await? {
                Requests::wake(host, path);
            }
        }
    }
    info!(domain = %host.own, "requests of toolstacks are served");
    Ok(())
}

/// The places of backends that were made for a request, which may have gone.
async fn orphans(host: &DaemonContext, kind: &Kind) -> Result<Vec<RequestPath>, Error> {
    let backends = below(host, &dispatch::root(host).join(kind.as_str())?).await?;
    let reads = backends.iter().map(|path| path.join(REQUEST_NODE).map(Request::Read));
    let replies = host.client.batch(reads.collect::<Result<_, _>>()?).await?;
    let made = backends.iter().zip(replies).filter_map(|(path, reply)| {
        let device = matches!(reply, Ok(Reply::Value(_))).then(|| path.components().skip(4).collect::<Vec<_>>());
        RequestPath::of(host.own, &device?.join("/").parse().ok()?)
    });
    Ok(made.collect())
}

/// The directories two levels below one: of devices, by guest.
async fn below(host: &DaemonContext, top: &Path) -> Result<Vec<Path>, Error> {
    let mut all = Vec::new();
    for guest in children(host, top).await? {
        let guest = top.join(&guest)?;
        for device in children(host, &guest).await? {
            all.push(guest.join(&device)?);
        }
    }
    Ok(all)
}

/// The names in a directory. One that is not there, or not for this domain to read, has none.
async fn children(host: &DaemonContext, path: &Path) -> Result<Vec<String>, Error> {
    match host.client.directory(path).await {
        Err(error) if error.is_not_found() || error.is_denied() => Ok(Vec::new()),
        names => names,
    }
}

fn top(host: &DaemonContext) -> Path {
    driver_domain(host.own)
        .parse()
        .expect("a path with a number in it is a path")
}
