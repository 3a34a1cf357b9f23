//! Workers whose work takes the seed's time, and in which the daemon is killed at the seed's choice.

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
    simulated::{FaultInjector, Operation},
};

use super::{chance::Chance, plan::Plan};

thread_local! {
    /// True if this thread is a worker.
    static WORKS: Cell<bool> = const { Cell::new(false) };
}

/// The payload with which a worker unwinds when the daemon is killed.
struct Killed;

/// The workers of one daemon.
pub(crate) struct Workers(pub(super) Arc<Shared>);

/// The state that the workers of all daemons of a seed share.
pub(super) struct Shared {
    chance: Chance,
    longest: u64,
    /// Probability per thousand that the daemon is killed, for each call and each worker.
    killing: u64,
    stuck: u64,
    /// The time for which the next worker is stuck, if a test sets it.
    stuck_for: Mutex<Option<Duration>>,
    /// True if failures still happen.
    stormy: Arc<AtomicBool>,
    /// The tokio runtime that workers block on.
    runtime: Handle,
    killed: Mutex<CancellationToken>,
    links: Mutex<Option<UnboundedSender<Option<IfName>>>>,
    death: Mutex<Death>,
}

impl Shared {
    pub(super) fn new(seed: u64, plan: &Plan, journal: PathBuf, runtime: Handle, stormy: Arc<AtomicBool>) -> Self {
        Self {
            chance: Chance::of(seed, "workers"),
            longest: plan.worker,
            killing: plan.killing,
            stuck: plan.stuck,
            stuck_for: Mutex::default(),
            stormy,
            runtime,
            killed: Mutex::default(),
            links: Mutex::default(),
            death: Mutex::new(Death { journal, kept: None }),
        }
    }

    /// Creates the workers of a new daemon, with the token of its death.
    pub(super) fn daemon(self: &Arc<Self>) -> (Workers, CancellationToken) {
        let killed = CancellationToken::new();
        *lock(&self.killed) = killed.clone();
        (Workers(Arc::clone(self)), killed)
    }

    /// Announces a link that the kernel has created.
    pub(super) fn appeared(&self, name: &IfName) {
        if let Some(links) = &*lock(&self.links) {
            let _ = links.send(Some(name.clone()));
        }
    }

    /// Creates the failures of the host's calls.
    pub(super) fn trouble(self: &Arc<Self>, seed: u64, failing: u64) -> Misfortune {
        Misfortune {
            shared: Arc::clone(self),
            chance: Chance::of(seed, "trouble"),
            failing,
        }
    }

    /// Makes the next worker stuck for a time after its work.
    pub(super) fn make_stuck(&self, time: Duration) {
        *lock(&self.stuck_for) = Some(time);
    }

    /// Returns the time before a worker's end is noticed.
    fn return_delay(&self) -> Duration {
        if let Some(time) = lock(&self.stuck_for).take() {
            return time;
        }
        match self.is_stormy() && self.chance.permille(self.stuck) {
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
                // Its work is done and journaled, and the daemon does not know of it.
                Ok(_) if shared.is_stormy() && shared.chance.permille(shared.killing) => shared.kill().await,
                Ok(done) => {
                    sleep(shared.return_delay()).await;
                    done
                }
                Err(reason) if reason.is::<Killed>() => shared.kill().await,
                Err(reason) => panic::resume_unwind(reason),
            }
        })
    }

    pub(crate) fn links(&self) -> UnboundedReceiver<Option<IfName>> {
        let (sender, links) = unbounded_channel();
        *lock(&self.0.links) = Some(sender);
        links
    }
}

/// Works on a thread of its own, as handlers block on tokio, while everything else waits.
fn on_thread<T: Send>(shared: &Shared, work: impl FnOnce() -> T + Send) -> thread::Result<T> {
    let log = tracing::dispatcher::get_default(Clone::clone);
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            WORKS.set(true);
            let _within = shared.runtime.enter();
            tracing::dispatcher::with_default(&log, || {
                panic::catch_unwind(AssertUnwindSafe(|| {
                    let done = work();
                    lock(&shared.death).strike();
                    done
                }))
            })
        });
        worker.join().and_then(|done| done)
    })
}

/// The decision to kill the daemon.
struct Death {
    journal: PathBuf,
    /// The journal at the time of the decision. The daemon is killed right after the call in which that happens, so
    /// later records are removed.
    kept: Option<BTreeMap<PathBuf, Vec<u8>>>,
}

impl Death {
    fn decide(&mut self) {
        self.kept = Some(records(&self.journal));
    }

    /// Kills the daemon, if that is decided.
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

/// Reads the records of a journal.
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

/// The failures of the host's calls.
pub(super) struct Misfortune {
    shared: Arc<Shared>,
    chance: Chance,
    failing: u64,
}

impl FaultInjector for Misfortune {
    fn call(&mut self, operation: Operation) -> Result<(), Error> {
        if !WORKS.get() {
            return Ok(());
        }
        let mut death = lock(&self.shared.death);
        death.strike();
        if !self.shared.is_stormy() {
            return Ok(());
        }
        if self.chance.permille(self.shared.killing) {
            death.decide();
            if self.chance.permille(500) {
                // It dies right before the call.
                death.strike();
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

/// Tests whether this thread is a worker.
pub(super) fn is_worker() -> bool {
    WORKS.get()
}
