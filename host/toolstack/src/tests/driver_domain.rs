//! Driver domain for tests: the protocol's function run by an unprivileged client, with a handler, a kernel and a guest
//! simulated in the store.

use std::{cell::RefCell, rc::Rc, time::Duration};

use tokio::task::JoinHandle;
use xenplug_hotplug::{
    Class, Request, RequestId, RequestPath, State,
    daemon::{Backend, DaemonAction, DaemonSnapshot, next},
    driver_domain,
};
use xenplug_xenbus::{HotplugStatus, XenbusState};
use xenplug_xenstore::{Client, Error, Path, Permission, Transaction};

use super::{D, G};

/// Injected faults.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// The handler fails.
    pub(super) fails: Option<&'static str>,
    /// The guest does not close its device.
    pub(super) stubborn: bool,
}

/// Held devices, each with the number of steps that a begun release still takes.
type Journal = Rc<RefCell<Vec<(RequestPath, Option<u32>)>>>;

/// Steps of a release.
const RELEASE: u32 = 20;

pub(super) struct DriverDomain {
    task: JoinHandle<()>,
    journal: Journal,
}

impl DriverDomain {
    pub(super) fn start(own: Client, guest: Client, faults: Faults) -> Self {
        Self::run(own, guest, faults, Journal::default())
    }

    pub(super) fn restart(own: Client, guest: Client, journal: Journal) -> Self {
        Self::run(own, guest, Faults::default(), journal)
    }

    fn run(own: Client, guest: Client, faults: Faults, journal: Journal) -> Self {
        let world = Simulated {
            own,
            guest,
            faults,
            journal: Rc::clone(&journal),
        };
        let task = tokio::task::spawn_local(async move {
            loop {
                for path in world.request_paths().await {
                    match world.turn(path).await {
                        // A concurrent write was faster, or the domain is gone.
                        Err(error) if error.is_conflict() || error.is_denied() || error.is_not_found() => {}
                        turn => turn.unwrap(),
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { task, journal }
    }

    pub(super) fn holds(&self) -> bool {
        !self.journal.borrow().is_empty()
    }

    pub(super) fn kill(self) -> Journal {
        self.task.abort();
        Rc::clone(&self.journal)
    }
}

impl Drop for DriverDomain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Simulated {
    own: Client,
    guest: Client,
    faults: Faults,
    journal: Journal,
}

impl Simulated {
    /// Requests and held devices.
    async fn request_paths(&self) -> Vec<RequestPath> {
        let mut request_paths: Vec<RequestPath> = self.journal.borrow().iter().map(|(path, _)| *path).collect();
        for class in [Class::Vbd, Class::Vif] {
            let at = format!("{}/{class}/{G}", driver_domain(D));
            let numbers = self.own.directory(&at.parse().unwrap()).await.unwrap_or_default();
            request_paths.extend(
                numbers
                    .iter()
                    .map(|number| format!("{at}/{number}").parse::<RequestPath>().unwrap()),
            );
        }
        request_paths.sort();
        request_paths.dedup();
        request_paths
    }

    async fn turn(&self, path: RequestPath) -> Result<(), Error> {
        let transaction = self.own.begin().await?;
        let snapshot = self.read_snapshot(&transaction, path).await?;
        if let Some(action) = next(&snapshot) {
            self.act(&transaction, path, &snapshot, &action).await?;
            return transaction.commit().await;
        }
        transaction.abort().await?;
        self.device(path, snapshot.backend).await
    }

    async fn read_snapshot(&self, transaction: &Transaction, path: RequestPath) -> Result<DaemonSnapshot, Error> {
        let at = path.to_string();
        let node = async |name: &str| text(transaction, &path.node(name)).await.map(Option::unwrap_or_default);
        let request = match text(transaction, &at).await? {
            None => None,
            Some(_) => Some(Request {
                id: node("id").await?.parse().unwrap(),
                vm: node("vm").await?,
                state: State::parse(&node("state").await?),
                force: node("force").await? == "1",
                error: node("error").await?,
            }),
        };
        let back = self.backend(path);
        let node = async |name: &str| text(transaction, &format!("{back}/{name}")).await;
        let backend = match text(transaction, &back).await? {
            None => None,
            Some(_) => Some(Backend {
                request_id: node("hotplug-request")
                    .await?
                    .map(|id| id.parse::<RequestId>().unwrap()),
                state: XenbusState::parse(&node("state").await?.unwrap_or_default()),
                online: node("online").await?.as_deref() == Some("1"),
                status: HotplugStatus::parse(node("hotplug-status").await?.as_deref()),
                error: node("hotplug-error").await?.unwrap_or_default(),
            }),
        };
        let id = request.as_ref().map(|request| request.id.to_string());
        Ok(DaemonSnapshot {
            refusal: String::new(),
            frontend: id.is_some() && text(transaction, &path.frontend_path()).await? == id,
            held: self.journal.borrow().iter().any(|(held, _)| *held == path),
            request,
            backend,
        })
    }

    fn backend(&self, path: RequestPath) -> String {
        format!("/local/domain/{D}/backend/{}/{G}/{}", path.class, path.devid)
    }

    async fn act(
        &self,
        transaction: &Transaction,
        path: RequestPath,
        snapshot: &DaemonSnapshot,
        action: &DaemonAction,
    ) -> Result<(), Error> {
        let (front, back) = (path.frontend_path(), self.backend(path));
        let write = async |node: String, value: &str| transaction.write(&node.parse()?, value).await;
        let state = async |state: State| write(path.node("state"), state.as_str()).await;
        let fail = async |why: &str| {
            if why.is_empty() || snapshot.request.is_none() {
                Ok(())
            } else {
                write(path.node("error"), why).await
            }
        };
        match action {
            DaemonAction::CreateBackend => {
                let directory: Path = back.parse()?;
                transaction.mkdir(&directory).await?;
                let read = [Permission::none(D.0), Permission::read(G.0)];
                transaction.set_permissions(&directory, &read).await?;
                for name in transaction.directory(&path.to_string().parse()?).await? {
                    if !xenplug_hotplug::request::OWN_NODES.contains(&&*name) {
                        let value = transaction.read(&path.node(&name).parse()?).await?;
                        transaction.write(&directory.join(&name)?, value).await?;
                    }
                }
                let id = snapshot
                    .request
                    .as_ref()
                    .map(|request| request.id.to_string())
                    .unwrap_or_default();
                write(format!("{back}/hotplug-request"), &id).await?;
                write(format!("{back}/frontend"), &front).await?;
                write(format!("{back}/frontend-id"), &G.to_string()).await?;
                write(format!("{back}/online"), "1").await?;
                write(format!("{back}/state"), "1").await?;
                let asked: Path = path.node("frontend").parse()?;
                for name in transaction.directory(&asked).await? {
                    let value = transaction.read(&asked.join(&name)?).await?;
                    let node: Path = format!("{front}/{name}").parse()?;
                    transaction.write(&node, value).await?;
                    transaction.set_permissions(&node, &read).await?;
                }
                write(format!("{front}/backend"), &back).await?;
                write(format!("{front}/state"), "1").await?;
                let both = [Permission::none(D.0), Permission::both(G.0)];
                transaction
                    .set_permissions(&format!("{front}/state").parse()?, &both)
                    .await?;
                state(State::Accepted).await
            }
            DaemonAction::WriteState(now) => state(*now).await,
            DaemonAction::RequestClose => {
                write(format!("{back}/online"), "0").await?;
                write(format!("{back}/state"), "5").await
            }
            DaemonAction::RemoveBackend(why) => {
                fail(why).await?;
                transaction.rm(&back.parse()?).await
            }
            DaemonAction::Close(why) => {
                fail(why).await?;
                if snapshot.frontend {
                    transaction.rm(&front.parse()?).await?;
                }
                state(State::Closed).await
            }
        }
    }

    /// Takes a step of the kernel's backend, the device's state machine and the guest.
    async fn device(&self, path: RequestPath, backend: Option<Backend>) -> Result<(), Error> {
        let back = self.backend(path);
        let write = async |name: &str, value: &str| self.own.write(&format!("{back}/{name}").parse()?, value).await;
        let leaving = |backend: &Backend| backend.state == XenbusState::Closed && !backend.online;
        let held = self.journal.borrow().iter().position(|(held, _)| *held == path);
        match (backend, held) {
            (Some(backend), _) if backend.state == XenbusState::Initialising => write("state", "2").await,
            (Some(backend), None) if leaving(&backend) => self.own.rm(&back.parse()?).await,
            (Some(backend), None) if backend.status == HotplugStatus::None && backend.online => match self.faults.fails
            {
                Some(why) => {
                    write("hotplug-error", why).await?;
                    write("hotplug-status", "error").await
                }
                None => {
                    self.journal.borrow_mut().push((path, None));
                    write("hotplug-status", "connected").await
                }
            },
            (Some(backend), Some(_)) if backend.state == XenbusState::InitWait => {
                // The backend has to be able to read the guest's own nodes.
                let ring: Path = format!("{}/ring-ref", path.frontend_path()).parse()?;
                self.guest.write(&ring, "8").await?;
                self.own.read(&ring).await?;
                write("state", "4").await
            }
            (Some(backend), Some(_)) if backend.state == XenbusState::Closing => {
                if self.faults.stubborn {
                    Ok(())
                } else {
                    write("state", "6").await
                }
            }
            (backend, Some(at)) if backend.as_ref().is_none_or(leaving) => {
                let left = self.journal.borrow()[at].1.unwrap_or(RELEASE);
                if left == 0 {
                    self.journal.borrow_mut().remove(at);
                } else {
                    self.journal.borrow_mut()[at].1 = Some(left - 1);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Reads a node. An unreadable node does not exist for this domain.
async fn text(transaction: &Transaction, path: &str) -> Result<Option<String>, Error> {
    match transaction.read(&path.parse()?).await {
        Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        Err(error) if error.is_not_found() || error.is_denied() => Ok(None),
        Err(error) => Err(error),
    }
}
