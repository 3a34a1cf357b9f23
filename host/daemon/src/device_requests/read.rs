//! The read of a request, its backend and its frontend, within the transaction that acts upon it.

use std::{fs, path::PathBuf, sync::Arc};

use xenplug_hotplug::{
    Class, Request, RequestId, RequestPath, State,
    daemon::{Backend, DaemonSnapshot},
    request::{DECIDED_BY_BACKEND, OWN_NODES, REQUEST_NODE, VERSION},
};
use xenplug_runtime::DeviceResources;
use xenplug_system::{Error as SystemError, block::LoopDevice, network::IfName};
use xenplug_xenbus::{DeviceInstance, DeviceKey, HotplugStatus, Kind, XenbusState};
use xenplug_xenstore::{Error, Path, Reply, Request as StoreRequest, Transaction};

use super::context::RequestContext;
use crate::device::normalize_vm_path;

/// The nodes of a request that decide.
const REQUEST_NODES: [&str; 8] = ["id", "vm", "state", "force", "error", "version", "kind", "params"];
/// The nodes of a backend that decide.
const BACKEND_NODES: [&str; 5] = [REQUEST_NODE, "state", "online", "hotplug-status", "hotplug-error"];

/// Nodes with their values.
pub(super) type Nodes = Vec<(String, Vec<u8>)>;

/// A request with its backend and its frontend.
pub(super) struct RequestSnapshot {
    /// The input of the protocol's decision.
    pub(super) seen: DaemonSnapshot,
    /// The kind of the backend that exists, else of the one that is requested, else the usual one.
    pub(super) kind: Kind,
    /// True if the daemon holds nothing any longer, but the kernel still does.
    pub(super) lingers: bool,
    /// The nodes that a new request has for the backend.
    pub(super) backend_nodes: Nodes,
    /// The nodes that a new request has for the frontend.
    pub(super) frontend_nodes: Nodes,
}

/// Reads a request. `refusal` is the reason for which the request of that id cannot be served.
pub(super) async fn read_request(
    transaction: &Transaction,
    context: &Arc<RequestContext>,
    path: RequestPath,
    refusal: Option<&(RequestId, String)>,
) -> Result<RequestSnapshot, Error> {
    let mut reads = Reads::default();
    reads.add("", &path.to_string());
    REQUEST_NODES.iter().for_each(|name| reads.add(name, &path.to_string()));
    reads.add("", &path.frontend_path());
    for kind in path.class.kinds() {
        let directory = path.backend_path(kind.clone()).to_string();
        reads.add("", &directory);
        BACKEND_NODES.iter().for_each(|name| reads.add(name, &directory));
    }
    let mut values = reads.values(transaction).await?.into_iter();
    let mut value = move || values.next().flatten();
    let mut text = move || value().map(|value| String::from_utf8_lossy(&value).into_owned());

    let there = text().is_some();
    let [id, vm, state, force, error, version, kind, params] = REQUEST_NODES.map(|_| text().unwrap_or_default());
    let front = text();
    let backends: Vec<(Kind, Backend)> = path
        .class
        .kinds()
        .iter()
        .filter_map(|kind| {
            let there = text().is_some();
            let [request_id, state, online, status, error] = BACKEND_NODES.map(|_| text());
            there.then(|| (kind.clone(), backend(request_id, state, online, status, error)))
        })
        .collect();

    let parsed = id.parse::<RequestId>();
    let request = there.then(|| Request {
        // An id that cannot be parsed matches no backend.
        id: parsed.clone().unwrap_or(RequestId(0)),
        vm: normalize_vm_path(vm),
        state: State::parse(&state),
        force: force == "1",
        error,
    });
    let requested = path.class.kinds().iter().find(|known| known.as_str() == kind).cloned();
    let mut reason = refusal
        .filter(|(refused, _)| request.as_ref().is_some_and(|request| request.id == *refused))
        .map(|(_, reason)| reason.clone())
        .or_else(|| parsed.err().map(|error| format!("id: {error}")))
        .or_else(|| (version != VERSION.to_string()).then(|| format!("version: {version:?} is not {VERSION}")))
        .or_else(|| {
            requested
                .is_none()
                .then(|| format!("kind: {kind:?} does not serve a {}", path.class))
        });

    let mut nodes = (Nodes::new(), Nodes::new());
    if request
        .as_ref()
        .is_some_and(|request| request.state == State::Requested)
    {
        nodes = (
            read_nodes(transaction, &path.to_string(), &OWN_NODES).await?,
            read_nodes(transaction, &path.node("frontend"), &[]).await?,
        );
        reason = reason.or_else(|| unfit(nodes.0.iter().chain(&nodes.1)));
    }

    // The request's own backend comes before that of another request, and that before libxl's.
    let rank = |request_id: Option<RequestId>| match (request_id, &request) {
        (Some(request_id), Some(request)) if request_id == request.id => 0,
        (Some(_), _) => 1,
        (None, _) => 2,
    };
    let backend = backends.into_iter().min_by_key(|(_, backend)| rank(backend.request_id));
    let (found, backend) = backend.unzip();
    let kind = found.or(requested).unwrap_or_else(|| path.class.kernel_kind());
    let frontend = request.is_some() && front == Some(id);

    let at_rest = context.registry.at_rest(|instance| is_at(path, &instance.device));
    // Only a request whose backend was created can linger.
    let created = request
        .as_ref()
        .is_some_and(|request| !matches!(request.state, State::Requested | State::Closed));
    let lingers = at_rest && created && backend.is_none() && lingers(context, path, params).await;
    Ok(RequestSnapshot {
        seen: DaemonSnapshot {
            request,
            refusal: reason.unwrap_or_default(),
            backend,
            frontend,
            held: !at_rest || lingers,
        },
        kind,
        lingers,
        backend_nodes: nodes.0,
        frontend_nodes: nodes.1,
    })
}

/// Tests whether a device is the one that a request is about.
fn is_at(path: RequestPath, device: &DeviceKey) -> bool {
    path.class.is_served_by(&device.kind) && device.frontend == path.frontend && device.devid == path.devid
}

fn backend(
    request_id: Option<String>,
    state: Option<String>,
    online: Option<String>,
    status: Option<String>,
    error: Option<String>,
) -> Backend {
    Backend {
        // An id that cannot be parsed matches no request.
        request_id: request_id.map(|id| id.parse().unwrap_or(RequestId(0))),
        state: XenbusState::parse(&state.unwrap_or_default()),
        online: online.as_deref() == Some("1"),
        status: HotplugStatus::parse(status.as_deref()),
        error: error.unwrap_or_default(),
    }
}

/// Returns why one of the nodes cannot be copied.
fn unfit<'a>(mut nodes: impl Iterator<Item = &'a (String, Vec<u8>)>) -> Option<String> {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    nodes.find_map(|(name, _)| {
        if DECIDED_BY_BACKEND.contains(&&**name) {
            Some(format!("{name}: a request cannot set it"))
        } else if name.bytes().all(fits) {
            None
        } else {
            Some(format!("{name}: is not a node name; a-z, 0-9 and - are expected"))
        }
    })
}

/// Reads all nodes of a directory but for some.
async fn read_nodes(transaction: &Transaction, directory: &str, but: &[&str]) -> Result<Nodes, Error> {
    let mut names = match transaction.directory(&directory.parse()?).await {
        Err(error) if error.is_not_found() || error.is_denied() => Vec::new(),
        names => names?,
    };
    names.retain(|name| !but.contains(&&**name));
    let mut reads = Reads::default();
    names.iter().for_each(|name| reads.add(name, directory));
    let values = reads.values(transaction).await?;
    Ok(names
        .into_iter()
        .zip(values)
        .filter_map(|(name, value)| Some((name, value?)))
        .collect())
}

/// Tests whether the kernel still holds something of a device that this daemon has released: blkback closes its disk, and
/// netback removes its link, only after they have announced that they are closed (drivers/block/xen-blkback/xenbus.c,
/// `frontend_changed`: `device_unregister`).
///
/// The loop device of another daemon may have the same tag; it is on another file.
async fn lingers(context: &Arc<RequestContext>, path: RequestPath, params: String) -> bool {
    let owned = Arc::clone(context);
    let find = move || {
        let platform = &owned.daemon.platform;
        let files = [fs::canonicalize(&params).ok(), Some(PathBuf::from(params))];
        let is_on_file = |device: &LoopDevice| files.iter().flatten().any(|file| *file == device.backing_path);
        let mut instances = path
            .class
            .kinds()
            .iter()
            .map(|kind| DeviceInstance::main(path.backend_path(kind.clone()).key));
        match path.class {
            Class::Vbd => instances.try_fold(false, |any, instance| {
                let named = platform.block.find_loops(&DeviceResources::tag_prefix(&instance))?;
                Ok::<_, SystemError>(any || named.iter().any(is_on_file))
            }),
            Class::Vif => Ok(instances.any(|instance| {
                let name = instance.link().parse::<IfName>();
                name.is_ok_and(|name| platform.network.exists(&name))
            })),
        }
    };
    // What cannot be found out is not waited for.
    matches!(context.daemon.workers.run(find).await, Ok(Ok(true)))
}

/// Nodes to be read in one batch.
#[derive(Default)]
struct Reads(Vec<Result<StoreRequest, Error>>);

impl Reads {
    /// Adds a node of a directory; with an empty name, the directory itself.
    fn add(&mut self, name: &str, directory: &str) {
        let path = directory
            .parse::<Path>()
            .and_then(|path| if name.is_empty() { Ok(path) } else { path.join(name) });
        self.0.push(path.map(StoreRequest::Read).map_err(Error::from));
    }

    /// Reads the values; `None` for a node that is absent or may not be read.
    async fn values(self, transaction: &Transaction) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let reads = self.0.into_iter().collect::<Result<_, _>>()?;
        let replies = transaction.batch(reads).await?.into_iter();
        replies
            .map(|reply| match reply {
                Ok(Reply::Value(value)) => Ok(Some(value)),
                Ok(_) => Ok(None),
                Err(error) if error.is_not_found() || error.is_denied() => Ok(None),
                Err(error) => Err(error),
            })
            .collect()
    }
}
