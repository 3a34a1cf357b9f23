//! Workers whose work takes the time that the seed says, and in which the daemon is killed when it says so.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{JoinHandle, spawn_local},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use xenplug_system::{
    Error,
    network::IfName,
    simulated::{Operation, Trouble},
};

use super::{chance::Chance, plan::Plan};

thread_local! {
    /// Whether this thread is a worker's.
    static WORKS: Cell<bool> = const { Cell::new(false) };
}

/// What a worker unwinds with when the daemon is killed.
struct Killed;

/// One daemon's workers.
pub(crate) struct Workers(pub(super) Arc<Shared>);

/// What the workers of all daemons of a seed share.
pub(super) struct Shared {
    chance: Chance,
    longest: u64,
    /// Of a thousand calls, and of a thousand workers that end.
    killing: u64,
    held_up: u64,
    /// For how long the next one is held up, if that is not left to chance.
    hold_up: Mutex<Option<Duration>>,
    /// Whether misfortunes happen still.
    stormy: Arc<AtomicBool>,
    /// Where tokio's parts of a worker live.
    runtime: Handle,
    killed: Mutex<CancellationToken>,
    links: Mutex<Option<UnboundedSender<Option<IfName>>>>,
    fate: Mutex<Doom>,
}

impl Shared {
    pub(super) fn new(seed: u64, plan: &Plan, journal: PathBuf, runtime: Handle, stormy: Arc<AtomicBool>) -> Self {
        Self {
            chance: Chance::of(seed, "workers"),
            longest: plan.worker,
            killing: plan.killing,
            held_up: plan.held_up,
            hold_up: Mutex::default(),
            stormy,
            runtime,
            killed: Mutex::default(),
            links: Mutex::default(),
            fate: Mutex::new(Doom { journal, kept: None }),
        }
    }

    /// The workers of a new daemon, and what tells that it was killed.
    pub(super) fn daemon(self: &Arc<Self>) -> (Workers, CancellationToken) {
        let killed = CancellationToken::new();
        *lock(&self.killed) = killed.clone();
        (Workers(Arc::clone(self)), killed)
    }

    /// A link has appeared, which the kernel tells.
    pub(super) fn appeared(&self, name: &IfName) {
        if let Some(links) = &*lock(&self.links) {
            let _ = links.send(Some(name.clone()));
        }
    }

    /// What befalls the machine's calls.
    pub(super) fn trouble(self: &Arc<Self>, seed: u64, failing: u64) -> Misfortune {
        Misfortune {
            shared: Arc::clone(self),
            chance: Chance::of(seed, "trouble"),
            failing,
        }
    }

    /// Holds up the next worker for so long after its work.
    pub(super) fn hold_up(&self, time: Duration) {
        *lock(&self.hold_up) = Some(time);
    }

    /// How long a worker takes to tell that it has ended.
    fn coming_back(&self) -> Duration {
        if let Some(time) = lock(&self.hold_up).take() {
            return time;
        }
        match self.is_stormy() && self.chance.permille(self.held_up) {
            true => self.chance.upto(60_000),
            false => self.chance.upto(self.longest),
        }
    }

    /// Kills the daemon, and so never returns.
    async fn kill<T>(&self) -> T {
        lock(&self.killed).cancel();
        std::future::pending().await
    }

    fn is_stormy(&self) -> bool {
        self.stormy.load(Ordering::Relaxed)
    }
}

impl Workers {
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let shared = Arc::clone(&self.0);
        spawn_local(async move {
            sleep(shared.chance.upto(shared.longest)).await;
            match on_thread(&shared, work) {
                // Its work is done and written down, and nobody else knows of it.
                Ok(_) if shared.is_stormy() && shared.chance.permille(shared.killing) => shared.kill().await,
                Ok(done) => {
                    sleep(shared.coming_back()).await;
                    done
                }
                Err(reason) if reason.is::<Killed>() => shared.kill().await,
                Err(reason) => panic::resume_unwind(reason),
            }
        })
    }

    pub(crate) fn links(&self) -> UnboundedReceiver<Option<IfName>> {
        let (told, links) = unbounded_channel();
        *lock(&self.0.links) = Some(told);
        links
    }
}

/// Works on a thread of its own, as handlers block on tokio's parts, while everything else waits.
fn on_thread<T: Send>(shared: &Shared, work: impl FnOnce() -> T + Send) -> thread::Result<T> {
    let log = tracing::dispatcher::get_default(Clone::clone);
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            WORKS.set(true);
            let _within = shared.runtime.enter();
            tracing::dispatcher::with_default(&log, || {
                panic::catch_unwind(AssertUnwindSafe(|| {
                    let done = work();
                    lock(&shared.fate).strike();
                    done
                }))
            })
        });
        worker.join().and_then(|done| done)
    })
}

/// That the daemon is to be killed.
struct Doom {
    journal: PathBuf,
    /// The journal as it was when that was decided. What is written after the call that it was decided at is lost with
    /// the daemon: it is killed right after that call.
    kept: Option<BTreeMap<PathBuf, Vec<u8>>>,
}

impl Doom {
    fn decide(&mut self) {
        self.kept = Some(records(&self.journal));
    }

    /// Kills the daemon, if that was decided.
    fn strike(&mut self) {
        let Some(kept) = self.kept.take() else { return };
        for path in records(&self.journal).keys().filter(|path| !kept.contains_key(*path)) {
            fs::remove_file(path).expect("a record can be removed");
        }
        for (path, content) in kept {
            fs::write(path, content).expect("a record can be written");
        }
        panic::resume_unwind(Box::new(Killed));
    }
}

/// The records of a journal.
pub(super) fn records(journal: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(journal).into_iter().flatten().flatten();
    let records = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some());
    records
        .map(|path| {
            let content = fs::read(&path).expect("a record can be read");
            (path, content)
        })
        .collect()
}

/// What befalls the machine's calls.
pub(super) struct Misfortune {
    shared: Arc<Shared>,
    chance: Chance,
    failing: u64,
}

impl Trouble for Misfortune {
    fn call(&mut self, operation: Operation) -> Result<(), Error> {
        if !WORKS.get() {
            return Ok(());
        }
        let mut fate = lock(&self.shared.fate);
        fate.strike();
        if !self.shared.is_stormy() {
            return Ok(());
        }
        if self.chance.permille(self.shared.killing) {
            fate.decide();
            if self.chance.permille(500) {
                // Right before it.
                fate.strike();
            }
        }
        if self.chance.permille(self.failing) {
            return Err(Error::Kernel {
                what: format!("{operation:?}"),
                errno: Some(5),
                source_text: "Input/output error".to_owned(),
            });
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this thread is a worker's.
pub(super) fn is_worker() -> bool {
    WORKS.get()
}
