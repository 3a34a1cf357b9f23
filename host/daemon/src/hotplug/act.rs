//! What is written for a request: its answer, and the directories that are made and removed for it.
//!
//! Beside `directory.rs` the only place of the daemon that writes to the store.

use xenplug_hotplug::{
    Class, RequestPath, State,
    daemon::DaemonAction,
    driver_domain,
    request::{ERROR_MAX, REQUEST_NODE},
};
use xenplug_runtime::clean;
use xenplug_xenbus::{DomId, XenbusState};
use xenplug_xenstore::{Client, Error, Path, Permission, Request, Transaction};

use super::read::Sight;
use crate::directory::{RETRY, remove, remove_above};

/// Says in the driver domain's directory which versions are served. `false` where there is none: nobody has prepared this
/// domain.
pub(super) async fn announce(client: &Client, own: DomId, versions: &str) -> Result<bool, Error> {
    let daemon: Path = format!("{}/daemon", driver_domain(own)).parse()?;
    client
        .transaction(&RETRY, async |transaction| match transaction.read(&daemon).await {
            Ok(said) if said == versions.as_bytes() => Ok(true),
            Ok(_) => transaction.write(&daemon, versions).await.map(|()| true),
            Err(error) if error.is_not_found() || error.is_denied() => Ok(false),
            Err(error) => Err(error),
        })
        .await
}

/// Does what is next, in the transaction of the look that says so.
pub(super) async fn act(
    transaction: &Transaction,
    path: RequestPath,
    sight: &Sight,
    action: &DaemonAction,
) -> Result<(), Error> {
    let mut writes = Writes {
        path,
        calls: Vec::new(),
    };
    match action {
        DaemonAction::CreateBackend => writes.make(sight)?,
        DaemonAction::WriteState(state) => writes.tell(*state)?,
        DaemonAction::RequestClose => writes.shut(sight)?,
        DaemonAction::RemoveBackend(why) => {
            writes.blame(sight, why)?;
            remove(transaction, &writes.backend(sight)?).await?;
        }
        DaemonAction::Close(why) => {
            writes.blame(sight, why)?;
            // QEMU removes what it closes, and that alone (hw/xen/xen-bus.c, `xen_device_backend_destroy`).
            remove_above(transaction, &writes.backend(sight)?).await?;
            if sight.seen.frontend {
                writes.calls.push(Request::Rm(path.frontend_path().parse()?));
            }
            writes.tell(State::Closed)?;
        }
    }
    for reply in transaction.batch(writes.calls).await? {
        reply?;
    }
    Ok(())
}

/// What is to be written, in this order.
struct Writes {
    path: RequestPath,
    calls: Vec<Request>,
}

impl Writes {
    fn write(&mut self, path: Path, value: impl AsRef<[u8]>) {
        self.calls.push(Request::Write(path, value.as_ref().to_vec()));
    }

    fn permit(&mut self, path: Path, others: Permission) {
        let permissions = vec![Permission::none(self.path.backend.0), others];
        self.calls.push(Request::SetPermissions(path, permissions));
    }

    fn tell(&mut self, state: State) -> Result<(), Error> {
        self.write(self.path.node("state").parse()?, state.as_str());
        Ok(())
    }

    /// Says why, unless something was said before.
    fn blame(&mut self, sight: &Sight, why: &str) -> Result<(), Error> {
        let unsaid = sight
            .seen
            .request
            .as_ref()
            .is_some_and(|request| request.error.is_empty());
        if unsaid && !why.is_empty() {
            self.write(self.path.node("error").parse()?, clean(why, ERROR_MAX));
        }
        Ok(())
    }

    fn backend(&self, sight: &Sight) -> Result<Path, Error> {
        let path = self.path.backend_path(sight.kind.clone());
        Ok(path.to_string().parse()?)
    }

    /// PendingCalls the guest to let go. A backend that has let go by itself would not come out of 5 again: libxl writes only
    /// `online` then as well (libxl_device.c, `libxl__initiate_device_generic_remove`).
    fn shut(&mut self, sight: &Sight) -> Result<(), Error> {
        let directory = self.backend(sight)?;
        self.write(directory.join("online")?, "0");
        let state = sight.seen.backend.as_ref().map(|backend| backend.state);
        if state != Some(XenbusState::Closed) {
            self.write(directory.join("state")?, "5");
        }
        Ok(())
    }

    /// Makes both directories; each side's `state` last, as libxl does.
    fn make(&mut self, sight: &Sight) -> Result<(), Error> {
        let RequestPath {
            backend,
            frontend,
            class,
            ..
        } = self.path;
        let (own, guest) = (backend.to_string(), frontend.to_string());
        let directory = self.backend(sight)?;
        let front: Path = self.path.frontend_path().parse()?;

        self.calls.push(Request::Mkdir(directory.clone()));
        // What is made in there has the same.
        self.permit(directory.clone(), Permission::read(frontend.0));
        for (name, value) in &sight.backend {
            self.write(directory.join(name)?, value);
        }
        let id = sight.seen.request.as_ref().map(|request| request.id.to_string());
        self.write(directory.join(REQUEST_NODE)?, id.unwrap_or_default());
        self.write(directory.join("frontend")?, front.as_str());
        self.write(directory.join("frontend-id")?, &guest);
        if class == Class::Vif {
            // Netback then holds its frontend back until it says `connected` (drivers/net/xen-netback/xenbus.c,
            // `connect`).
            self.write(directory.join("hotplug-status")?, "");
        }
        self.write(directory.join("online")?, "1");
        self.write(directory.join("state")?, "1");

        let own_nodes = [("backend", directory.as_str()), ("backend-id", &own)];
        let own_nodes = own_nodes.iter().map(|(name, value)| (*name, value.as_bytes()));
        let asked = sight.frontend.iter().map(|(name, value)| (&**name, &**value));
        for (name, value) in asked.chain(own_nodes) {
            let node = front.join(name)?;
            self.write(node.clone(), value);
            self.permit(node, Permission::read(frontend.0));
        }
        let state = front.join("state")?;
        self.write(state.clone(), "1");
        self.permit(state, Permission::both(frontend.0));
        self.tell(State::Accepted)
    }
}
