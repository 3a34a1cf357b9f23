//! The writes for a request: its state, and the directories that are created and removed for it.

use xenplug_hotplug::{
    Class, RequestPath, State,
    daemon::DaemonAction,
    driver_domain,
    request::{ERROR_MAX, REQUEST_NODE},
};
use xenplug_runtime::clean;
use xenplug_xenbus::{DomId, XenbusState};
use xenplug_xenstore::{Client, Error, Path, Permission, Request, Transaction};

use super::read::RequestSnapshot;
use crate::device::{RETRY, remove, remove_above};

/// Announces the served versions in the driver domain's directory. Returns `false` if there is none: nobody has prepared this
/// domain.
pub(super) async fn announce(client: &Client, own: DomId, versions: &str) -> Result<bool, Error> {
    let node: Path = format!("{}/daemon", driver_domain(own)).parse()?;
    client
        .transaction(&RETRY, async |transaction| match transaction.read(&node).await {
            Ok(announced) if announced == versions.as_bytes() => Ok(true),
            Ok(_) => transaction.write(&node, versions).await.map(|()| true),
            Err(error) if error.is_not_found() || error.is_denied() => Ok(false),
            Err(error) => Err(error),
        })
        .await
}

/// Carries out the next action in the transaction that read the request.
pub(super) async fn act(
    transaction: &Transaction,
    path: RequestPath,
    snapshot: &RequestSnapshot,
    action: &DaemonAction,
) -> Result<(), Error> {
    let mut writes = Writes {
        path,
        requests: Vec::new(),
    };
    match action {
        DaemonAction::CreateBackend => writes.create(snapshot)?,
        DaemonAction::WriteState(state) => writes.write_state(*state)?,
        DaemonAction::RequestClose => writes.request_close(snapshot)?,
        DaemonAction::RemoveBackend(why) => {
            writes.write_error(snapshot, why)?;
            remove(transaction, &writes.backend(snapshot)?).await?;
        }
        DaemonAction::Close(why) => {
            writes.write_error(snapshot, why)?;
            // QEMU removes only the directory that it closes (hw/xen/xen-bus.c, `xen_device_backend_destroy`).
            remove_above(transaction, &writes.backend(snapshot)?).await?;
            if snapshot.seen.frontend {
                writes.requests.push(Request::Rm(path.frontend_path().parse()?));
            }
            writes.write_state(State::Closed)?;
        }
    }
    for reply in transaction.batch(writes.requests).await? {
        reply?;
    }
    Ok(())
}

/// The requests to the store, in this order.
struct Writes {
    path: RequestPath,
    requests: Vec<Request>,
}

impl Writes {
    fn write(&mut self, path: Path, value: impl AsRef<[u8]>) {
        self.requests.push(Request::Write(path, value.as_ref().to_vec()));
    }

    fn permit(&mut self, path: Path, others: Permission) {
        let permissions = vec![Permission::none(self.path.backend.0), others];
        self.requests.push(Request::SetPermissions(path, permissions));
    }

    fn write_state(&mut self, state: State) -> Result<(), Error> {
        self.write(self.path.node("state").parse()?, state.as_str());
        Ok(())
    }

    /// Writes an error, unless there is an earlier one.
    fn write_error(&mut self, snapshot: &RequestSnapshot, why: &str) -> Result<(), Error> {
        let first = snapshot
            .seen
            .request
            .as_ref()
            .is_some_and(|request| request.error.is_empty());
        if first && !why.is_empty() {
            self.write(self.path.node("error").parse()?, clean(why, ERROR_MAX));
        }
        Ok(())
    }

    fn backend(&self, snapshot: &RequestSnapshot) -> Result<Path, Error> {
        let path = self.path.backend_path(snapshot.kind.clone());
        Ok(path.to_string().parse()?)
    }

    /// Asks the guest to close the device. A backend that is closed would never leave state 5: libxl writes only `online` in
    /// that case as well (libxl_device.c, `libxl__initiate_device_generic_remove`).
    fn request_close(&mut self, snapshot: &RequestSnapshot) -> Result<(), Error> {
        let directory = self.backend(snapshot)?;
        self.write(directory.join("online")?, "0");
        let state = snapshot.seen.backend.as_ref().map(|backend| backend.state);
        if state != Some(XenbusState::Closed) {
            self.write(directory.join("state")?, "5");
        }
        Ok(())
    }

    /// Creates both directories, each with its `state` last, as libxl does.
    fn create(&mut self, snapshot: &RequestSnapshot) -> Result<(), Error> {
        let RequestPath {
            backend,
            frontend,
            class,
            ..
        } = self.path;
        let (own, guest) = (backend.to_string(), frontend.to_string());
        let directory = self.backend(snapshot)?;
        let front: Path = self.path.frontend_path().parse()?;

        self.requests.push(Request::Mkdir(directory.clone()));
        // The nodes created below inherit the permissions.
        self.permit(directory.clone(), Permission::read(frontend.0));
        for (name, value) in &snapshot.backend_nodes {
            self.write(directory.join(name)?, value);
        }
        let id = snapshot.seen.request.as_ref().map(|request| request.id.to_string());
        self.write(directory.join(REQUEST_NODE)?, id.unwrap_or_default());
        self.write(directory.join("frontend")?, front.as_str());
        self.write(directory.join("frontend-id")?, &guest);
        if class == Class::Vif {
            // With that node netback waits for its value `connected` (drivers/net/xen-netback/xenbus.c, `connect`).
            self.write(directory.join("hotplug-status")?, "");
        }
        self.write(directory.join("online")?, "1");
        self.write(directory.join("state")?, "1");

        let own_nodes = [("backend", directory.as_str()), ("backend-id", &own)];
        let own_nodes = own_nodes.iter().map(|(name, value)| (*name, value.as_bytes()));
        let requested = snapshot.frontend_nodes.iter().map(|(name, value)| (&**name, &**value));
        for (name, value) in requested.chain(own_nodes) {
            let node = front.join(name)?;
            self.write(node.clone(), value);
            self.permit(node, Permission::read(frontend.0));
        }
        let state = front.join("state")?;
        self.write(state.clone(), "1");
        self.permit(state, Permission::both(frontend.0));
        self.write_state(State::Accepted)
    }
}
