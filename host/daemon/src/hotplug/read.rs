//! One look at a request, its backend and its frontend, within the transaction that acts upon it.

use std::{fs, path::PathBuf, sync::Arc};

use tokio::task::spawn_blocking;
use xenplug_hotplug::{
    Class, Request, RequestId, RequestPath, State,
    daemon::{Backend, DaemonSnapshot},
    request::{DECIDED_BY_BACKEND, OWN_NODES, REQUEST_NODE, VERSION},
};
use xenplug_runtime::DeviceResources;
use xenplug_system::{Error as SystemError, block::LoopDevice, network::IfName};
use xenplug_xenbus::{DeviceInstance, DeviceKey, HotplugStatus, Kind, XenbusState};
use xenplug_xenstore::{Error, Path, Reply, Request as ScriptCall, Transaction};

use crate::{context::DaemonContext, directory::normalize_vm_path};

/// The nodes of a request that decide.
const OF_REQUEST: [&str; 8] = ["id", "vm", "state", "force", "error", "version", "kind", "params"];
/// The nodes of a backend that decide.
const OF_BACKEND: [&str; 5] = [REQUEST_NODE, "state", "online", "hotplug-status", "hotplug-error"];

/// Nodes to be handed on, with their values.
pub(super) type Nodes = Vec<(String, Vec<u8>)>;

/// What a look found.
pub(super) struct Sight {
    /// What decides.
    pub(super) seen: DaemonSnapshot,
    /// The kind of the backend that is there, else of the one that is asked for, else the usual one.
    pub(super) kind: Kind,
    /// Whether nothing is held by this daemon any longer, and the kernel has not let go yet.
    pub(super) lingers: bool,
    /// What a request that is wanted hands on to the backend.
    pub(super) backend: Nodes,
    /// And to the frontend.
    pub(super) frontend: Nodes,
}

/// Looks. `refusal` is why the request of that id has been found not to be served.
pub(super) async fn read_request(
    transaction: &Transaction,
    host: &Arc<DaemonContext>,
    path: RequestPath,
    refusal: Option<&(RequestId, String)>,
) -> Result<Sight, Error> {
    let mut reads = Reads::default();
    reads.add("", &path.to_string());
    OF_REQUEST.iter().for_each(|name| reads.add(name, &path.to_string()));
    reads.add("", &path.frontend_path());
    for kind in path.class.kinds() {
        let directory = path.backend_path(kind.clone()).to_string();
        reads.add("", &directory);
        OF_BACKEND.iter().for_each(|name| reads.add(name, &directory));
    }
    let mut values = reads.values(transaction).await?.into_iter();
    let mut value = move || values.next().flatten();
    let mut text = move || value().map(|value| String::from_utf8_lossy(&value).into_owned());

    let there = text().is_some();
    let [id, vm, state, force, error, version, kind, params] = OF_REQUEST.map(|_| text().unwrap_or_default());
    let front = text();
    let backends: Vec<(Kind, Backend)> = path
        .class
        .kinds()
        .iter()
        .filter_map(|kind| {
            let there = text().is_some();
            let [request_id, state, online, status, error] = OF_BACKEND.map(|_| text());
            there.then(|| (kind.clone(), backend(request_id, state, online, status, error)))
        })
        .collect();

    let parsed = id.parse::<RequestId>();
    let request = there.then(|| Request {
        // One without a sensible id is nobody's.
        id: parsed.clone().unwrap_or(RequestId(0)),
        vm: normalize_vm_path(vm),
        state: State::parse(&state),
        force: force == "1",
        error,
    });
    let asked = path.class.kinds().iter().find(|known| known.as_str() == kind).cloned();
    let mut why = refusal
        .filter(|(refused, _)| request.as_ref().is_some_and(|request| request.id == *refused))
        .map(|(_, why)| why.clone())
        .or_else(|| parsed.err().map(|error| format!("id: {error}")))
        .or_else(|| (version != VERSION.to_string()).then(|| format!("version: {version:?} is not {VERSION}")))
        .or_else(|| (asked.is_none()).then(|| format!("kind: {kind:?} does not serve a {}", path.class)));

    let mut handed = (Nodes::new(), Nodes::new());
    if request
        .as_ref()
        .is_some_and(|request| request.state == State::Requested)
    {
        handed = (
            nodes(transaction, &path.to_string(), &OWN_NODES).await?,
            nodes(transaction, &path.node("frontend"), &[]).await?,
        );
        why = why.or_else(|| unfit(handed.0.iter().chain(&handed.1)));
    }

    // The request's own before another's, and that before libxl's.
    let rank = |request_id: Option<RequestId>| match (request_id, &request) {
        (Some(request_id), Some(request)) if request_id == request.id => 0,
        (Some(_), _) => 1,
        (None, _) => 2,
    };
    let backend = backends.into_iter().min_by_key(|(_, backend)| rank(backend.request_id));
    let (found, backend) = backend.unzip();
    let kind = found.or(asked).unwrap_or_else(|| path.class.kernel_kind());
    let frontend = request.is_some() && front == Some(id);

    let at_rest = host.registry.at_rest(|part| is_at(path, &part.device));
    // Only what was made is taken down.
    let made = request
        .as_ref()
        .is_some_and(|request| !matches!(request.state, State::Requested | State::Closed));
    let lingers = at_rest && made && backend.is_none() && lingers(host, path, params).await;
    Ok(Sight {
        seen: DaemonSnapshot {
            request,
            refusal: why.unwrap_or_default(),
            backend,
            frontend,
            held: !at_rest || lingers,
        },
        kind,
        lingers,
        backend: handed.0,
        frontend: handed.1,
    })
}

/// Whether a device is, or was, at the place of a request.
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
        // One that says nothing sensible is no request's that there is.
        request_id: request_id.map(|id| id.parse().unwrap_or(RequestId(0))),
        state: XenbusState::parse(&state.unwrap_or_default()),
        online: online.as_deref() == Some("1"),
        status: HotplugStatus::parse(status.as_deref()),
        error: error.unwrap_or_default(),
    }
}

/// Why one of the nodes cannot be handed on.
fn unfit<'a>(mut nodes: impl Iterator<Item = &'a (String, Vec<u8>)>) -> Option<String> {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    nodes.find_map(|(name, _)| {
        if DECIDED_BY_BACKEND.contains(&&**name) {
            Some(format!("{name}: is not for a request to say"))
        } else if name.bytes().all(fits) {
            None
        } else {
            Some(format!("{name}: is no name of a node; a-z, 0-9 and - are expected"))
        }
    })
}

/// All nodes of a directory with their values, but for some.
async fn nodes(transaction: &Transaction, directory: &str, but: &[&str]) -> Result<Nodes, Error> {
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

/// Whether the kernel still has something of a device that this daemon has let go: blkback closes its disk, and netback
/// removes its link, only after they have said that they are closed (drivers/block/xen-blkback/xenbus.c,
/// `frontend_changed`: `device_unregister`).
///
/// A loop device of another daemon's may have the same name; it is on another file.
async fn lingers(host: &Arc<DaemonContext>, path: RequestPath, params: String) -> bool {
    let host = Arc::clone(host);
    let look = move || {
        let files = [fs::canonicalize(&params).ok(), Some(PathBuf::from(params))];
        let is_on_it = |device: &LoopDevice| files.iter().flatten().any(|file| *file == device.backing_path);
        let mut parts = path
            .class
            .kinds()
            .iter()
            .map(|kind| DeviceInstance::main(path.backend_path(kind.clone()).key));
        match path.class {
            Class::Vbd => parts.try_fold(false, |any, part| {
                let named = host.system.block.find_loops(&DeviceResources::tags(&part))?;
                Ok::<_, SystemError>(any || named.iter().any(is_on_it))
            }),
            Class::Vif => Ok(parts.any(|part| {
                let name = part.link().parse::<IfName>();
                name.is_ok_and(|name| host.system.network.exists(&name))
            })),
        }
    };
    // What cannot be looked at is not waited for.
    matches!(spawn_blocking(look).await, Ok(Ok(true)))
}

/// Nodes to be read in one go.
#[derive(Default)]
struct Reads(Vec<Result<ScriptCall, Error>>);

impl Reads {
    /// A node of a directory; the directory itself with an empty name.
    fn add(&mut self, name: &str, directory: &str) {
        let path = directory
            .parse::<Path>()
            .and_then(|path| if name.is_empty() { Ok(path) } else { path.join(name) });
        self.0.push(path.map(ScriptCall::Read).map_err(Error::from));
    }

    /// Their values; none for what is not there, or not for this domain to see.
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
