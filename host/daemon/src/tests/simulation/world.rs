//! The world of a seed: the store, the host, the journal, and the violations.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc::UnboundedSender, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use xenplug_control::script::{Answer, Call};
use xenplug_runtime::Engine;
use xenplug_store_server::{self as server, Fate, Message, Server, Transport, TransportPolicy};
use xenplug_system::{Platform, network::IfName, simulated};
use xenplug_xenbus::{DeviceKey, DomId, Mode};

use super::{chance::Chance, plan::Plan, workers::Shared};
use crate::control::Control;

/// Everything that outlives a seed: the engine, and a folder with the configurations and the compiled handlers.
pub(super) struct Fixture {
    pub(super) engine: Engine,
    pub(super) folder: TempDir,
    /// The tokio runtime that workers block on.
    workers: Runtime,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let shm = std::path::Path::new("/dev/shm");
        let folder = match shm.is_dir() {
            true => tempfile::tempdir_in(shm),
            false => tempfile::tempdir(),
        };
        Self {
            engine: Engine::new().expect("an engine"),
            folder: folder.expect("a folder"),
            workers: Builder::new_current_thread().enable_time().build().expect("a runtime"),
        }
    }
}

/// A guest's device, as the toolstack created it.
#[derive(Clone, Debug)]
pub(super) struct CreatedDevice {
    /// Unique within the seed.
    pub(super) number: u64,
    /// Its image.
    pub(super) params: String,
    /// True if somebody else deleted a part of it.
    pub(super) harmed: bool,
    /// The number of time jumps before it was created.
    pub(super) jumps: u64,
}

/// A script's call, and the sender of its answer.
pub(super) type SentCall = (Call, oneshot::Sender<Answer>);

/// The world of a seed.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) plan: Plan,
    /// The domain of the backends and the daemon.
    pub(super) own: DomId,
    pub(super) server: Server,
    pub(super) transport: Transport,
    pub(super) host: Arc<simulated::SimHost>,
    pub(super) workers: Arc<Shared>,
    pub(super) folder: TempDir,
    pub(super) config: PathBuf,
    /// True if failures still happen.
    pub(super) stormy: Arc<AtomicBool>,
    /// The running daemon, if there is one.
    pub(super) daemon: RefCell<Weak<Control>>,
    /// Its control socket.
    pub(super) socket: RefCell<Option<UnboundedSender<SentCall>>>,
    /// The devices that the toolstack wants.
    pub(super) made: RefCell<BTreeMap<DeviceKey, CreatedDevice>>,
    /// Counts guests and their devices.
    pub(super) count: Cell<u64>,
    /// Counts time jumps. An operation in flight then takes too long, which is nobody's fault.
    pub(super) jumps: Cell<u64>,
    violations: RefCell<Vec<String>>,
    /// Cancelled at the first violation.
    pub(super) over: CancellationToken,
    began: Instant,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan, fixture: &Fixture) -> Rc<Self> {
        let server = Server::new(server::Options::default());
        let own = match plan.mode {
            Mode::Dom0 => DomId(0),
            Mode::DriverDomain => DomId(1),
        };
        let stormy = Arc::new(AtomicBool::new(false));
        let faults = MessageFaults {
            chance: Chance::of(seed, "road"),
            longest: plan.message,
            stalls: plan.misfortune > 0,
            lost: plan.lost,
            twice: plan.twice,
            stormy: Arc::clone(&stormy),
        };
        let transport = server.transport(own.0, Some(Arc::new(faults)));
        let (_, host) = Platform::simulated();
        let folder = tempfile::tempdir_in(fixture.folder.path()).expect("a folder");
        let journal = folder.path().join("journal");
        let runtime = fixture.workers.handle().clone();
        let workers = Arc::new(Shared::new(seed, &plan, journal, runtime, Arc::clone(&stormy)));
        host.set_fault_injector(Box::new(workers.trouble(seed, plan.failing)));
        host.add_bridge(&"xenbr0".parse().expect("a name"));
        let config = fixture.folder.path().join(match plan.mode {
            Mode::Dom0 => "dom0.toml",
            Mode::DriverDomain => "driver-domain.toml",
        });
        Rc::new(Self {
            seed,
            plan,
            own,
            server,
            transport,
            host,
            workers,
            folder,
            config,
            stormy,
            daemon: RefCell::default(),
            socket: RefCell::default(),
            made: RefCell::default(),
            count: Cell::new(0),
            jumps: Cell::new(0),
            violations: RefCell::default(),
            over: CancellationToken::new(),
            began: Instant::now(),
        })
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    pub(super) fn backend(&self, key: &DeviceKey) -> String {
        format!("/local/domain/{}/backend/{key}", self.own)
    }

    /// The name of a vif's link.
    pub(super) fn link(&self, key: &DeviceKey) -> IfName {
        let name = format!("vif{}.{}", key.frontend, key.devid);
        name.parse().expect("a name")
    }

    /// Starts or ends the failures.
    pub(super) fn storm(&self, begins: bool) {
        self.stormy.store(begins, Ordering::Relaxed);
        self.say(if begins { "failures begin" } else { "failures end" });
    }

    pub(super) fn is_stormy(&self) -> bool {
        self.stormy.load(Ordering::Relaxed)
    }

    /// Writes to the trace.
    pub(super) fn say(&self, what: impl AsRef<str>) {
        tracing::info!(target: "world", "{}", what.as_ref());
    }

    /// Reports a violation.
    pub(super) fn wrong(&self, what: impl AsRef<str>) {
        let at = self.began.elapsed();
        tracing::error!(target: "world", "WRONG: {}", what.as_ref());
        self.violations
            .borrow_mut()
            .push(format!("after {at:?}: {}", what.as_ref()));
        self.over.cancel();
    }

    /// Makes a script's call. Returns `None` without a daemon, or if it ends without an answer.
    pub(super) async fn call(&self, call: Call) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let socket = self.socket.borrow().clone();
        socket?.send((call, answer)).ok()?;
        answered.await.ok()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.borrow().clone()
    }

    /// Returns the device if it is wanted.
    pub(super) fn wanted(&self, key: &DeviceKey) -> Option<CreatedDevice> {
        self.made.borrow().get(key).cloned()
    }
}

/// The delays and losses of messages between daemon and store.
struct MessageFaults {
    chance: Chance,
    longest: u64,
    /// True if the store stalls now and then.
    stalls: bool,
    lost: u64,
    twice: u64,
    stormy: Arc<AtomicBool>,
}

impl TransportPolicy for MessageFaults {
    fn fate(&self, message: Message) -> Fate {
        let stormy = self.stormy.load(Ordering::Relaxed);
        let after = match stormy && self.stalls && self.chance.below(4000) == 0 {
            true => self.chance.upto(30_000),
            false if stormy => self.chance.upto(self.longest),
            false => Duration::from_millis(1),
        };
        match (message, stormy) {
            (Message::Event, true) if self.chance.permille(self.lost) => Fate::Lost,
            (Message::Event, true) if self.chance.permille(self.twice) => Fate::Twice(after),
            _ => Fate::Arrives(after),
        }
    }
}
