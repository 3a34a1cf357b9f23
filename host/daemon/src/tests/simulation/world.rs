//! What everybody in a simulation shares: the store, the machine, the journal, and what has gone wrong.

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

/// What outlives the seeds: the engine, and a folder with the configurations and the compiled handlers.
pub(super) struct Stage {
    pub(super) engine: Engine,
    pub(super) folder: TempDir,
    /// Where tokio's parts of workers live.
    workers: Runtime,
}

impl Stage {
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

/// A guest's device, as the toolstack made it.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// That of no other device of the seed.
    pub(super) number: u64,
    /// What it is made of: an image.
    pub(super) params: String,
    /// Whether something of it was taken away by others.
    pub(super) harmed: bool,
    /// How often time had jumped before.
    pub(super) jumps: u64,
}

/// A script's call, and where its answer goes.
pub(super) type Asked = (Call, oneshot::Sender<Answer>);

/// What everybody shares.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) plan: Plan,
    /// The backends' domain, the daemon's.
    pub(super) own: DomId,
    pub(super) server: Server,
    pub(super) transport: Transport,
    pub(super) machine: Arc<simulated::SimHost>,
    pub(super) workers: Arc<Shared>,
    pub(super) folder: TempDir,
    pub(super) config: PathBuf,
    /// Whether misfortunes happen still.
    pub(super) stormy: Arc<AtomicBool>,
    /// The daemon that lives, if one does.
    pub(super) daemon: RefCell<Weak<Control>>,
    /// Its control socket.
    pub(super) socket: RefCell<Option<UnboundedSender<Asked>>>,
    /// The devices that there are to be, by the toolstack's will.
    pub(super) made: RefCell<BTreeMap<DeviceKey, Made>>,
    /// Counts guests and their devices.
    pub(super) count: Cell<u64>,
    /// Counts how often time has jumped: then whatever was under way has taken too long, and nobody is to blame.
    pub(super) jumps: Cell<u64>,
    violations: RefCell<Vec<String>>,
    /// Cancelled at the first violation.
    pub(super) over: CancellationToken,
    began: Instant,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan, stage: &Stage) -> Rc<Self> {
        let server = Server::new(server::Options::default());
        let own = match plan.mode {
            Mode::Dom0 => DomId(0),
            Mode::DriverDomain => DomId(1),
        };
        let stormy = Arc::new(AtomicBool::new(false));
        let weather = Weather {
            chance: Chance::of(seed, "road"),
            longest: plan.message,
            held_up: plan.misfortune > 0,
            lost: plan.lost,
            twice: plan.twice,
            stormy: Arc::clone(&stormy),
        };
        let transport = server.transport(own.0, Some(Arc::new(weather)));
        let (_, machine) = Platform::simulated();
        let folder = tempfile::tempdir_in(stage.folder.path()).expect("a folder");
        let journal = folder.path().join("journal");
        let runtime = stage.workers.handle().clone();
        let workers = Arc::new(Shared::new(seed, &plan, journal, runtime, Arc::clone(&stormy)));
        machine.expect(Box::new(workers.trouble(seed, plan.failing)));
        machine.add_bridge(&"xenbr0".parse().expect("a name"));
        let config = stage.folder.path().join(match plan.mode {
            Mode::Dom0 => "dom0.toml",
            Mode::DriverDomain => "driver-domain.toml",
        });
        Rc::new(Self {
            seed,
            plan,
            own,
            server,
            transport,
            machine,
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

    /// The name of a card's link.
    pub(super) fn link(&self, key: &DeviceKey) -> IfName {
        let name = format!("vif{}.{}", key.frontend, key.devid);
        name.parse().expect("a name")
    }

    /// From here on things go wrong, or well.
    pub(super) fn storm(&self, begins: bool) {
        self.stormy.store(begins, Ordering::Relaxed);
        self.say(if begins {
            "the storm begins"
        } else {
            "the storm is over"
        });
    }

    pub(super) fn is_stormy(&self) -> bool {
        self.stormy.load(Ordering::Relaxed)
    }

    /// Tells the log.
    pub(super) fn say(&self, what: impl AsRef<str>) {
        tracing::info!(target: "world", "{}", what.as_ref());
    }

    /// Something must not be so.
    pub(super) fn wrong(&self, what: impl AsRef<str>) {
        let at = self.began.elapsed();
        tracing::error!(target: "world", "WRONG: {}", what.as_ref());
        self.violations
            .borrow_mut()
            .push(format!("after {at:?}: {}", what.as_ref()));
        self.over.cancel();
    }

    /// A script's call: none if there is no daemon, or it ends without an answer.
    pub(super) async fn call(&self, call: Call) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let socket = self.socket.borrow().clone();
        socket?.send((call, answer)).ok()?;
        answered.await.ok()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.borrow().clone()
    }

    /// The device that there is to be.
    pub(super) fn wanted(&self, key: &DeviceKey) -> Option<Made> {
        self.made.borrow().get(key).cloned()
    }
}

/// How messages between daemon and store fare.
struct Weather {
    chance: Chance,
    longest: u64,
    /// Whether the store stops for a while now and then.
    held_up: bool,
    lost: u64,
    twice: u64,
    stormy: Arc<AtomicBool>,
}

impl TransportPolicy for Weather {
    fn fate(&self, message: Message) -> Fate {
        let stormy = self.stormy.load(Ordering::Relaxed);
        let after = match stormy && self.held_up && self.chance.below(4000) == 0 {
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
