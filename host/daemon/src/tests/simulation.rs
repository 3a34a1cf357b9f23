//! The whole daemon in a simulated world, in which a seed decides every step: the time of each message and each worker,
//! the failures, and when the daemon is killed.
//!
//! The daemon is the real one: its dispatch, its devices' tasks, its recovery, the journal on a file system, the store's
//! client, and the handlers `phy` and `vif-bridge` as components. The store is the embedded server behind connections on
//! which messages take time; the host is the simulated one. Everything runs on one thread, whose clock jumps to the next
//! event, so that a seed gives the same trace in every run. Handlers and releases run on a thread of their own, and everything
//! else waits for them: the seed chooses where in that time they happen.
//!
//! `XENPLUG_SEED=17 cargo test -p xenplugd --release simulation` runs one seed, and prints its trace;
//! `XENPLUG_SEEDS=100000` runs that many.

mod chance;
mod check;
mod daemon;
mod guest;
mod kernel;
mod late;
mod plan;
mod store;
mod toolstack;
mod trace;
mod unreleased;
mod workers;
mod world;

use std::{
    cell::RefCell,
    env, fs,
    future::Future,
    panic,
    path::PathBuf,
    rc::Rc,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use xenplug_xenbus::DomId;
use xenplug_xenstore::Permission;

use check::Checker;
use plan::Plan;
use store::StoreAccess;
use toolstack::Slot;
use trace::Trace;
pub(crate) use workers::Workers;
use world::{Fixture, World};

/// The default numbers of seeds, for short and for long runs.
const SEEDS: u64 = 1000;
const LONG: u64 = 100_000;
/// The domain ids of the guests.
const GUESTS: [DomId; 2] = [DomId(5), DomId(6)];
/// Longer than any seed by the simulation's clock.
const END: Duration = Duration::from_secs(86_400);

thread_local! {
    /// The panic of a task of this thread, which tokio does not pass on.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lets one test run at a time: the log filter is decided for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
#[allow(clippy::print_stdout, reason = "`cargo xtask trials` reads it there")]
fn thousand_seeds_lose_nothing_and_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let fixture = fixture();
    let first = number("XENPLUG_SEED");
    let long = env::var_os("XENPLUG_FAULT_SUITE").is_some_and(|value| value == "long");
    let seeds = match first {
        Some(seed) => seed..seed + 1,
        None => 0..number("XENPLUG_SEEDS").unwrap_or(if long { LONG } else { SEEDS }),
    };
    let next = AtomicU64::new(seeds.start);
    let failed: Vec<(u64, String)> = thread::scope(|scope| {
        let players = thread::available_parallelism().map_or(1, usize::from).min(4);
        let play_all = || {
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || failed.len() > 4 {
                    return failed;
                }
                if let Err(reason) = play(seed, &fixture, None) {
                    failed.push((seed, reason));
                }
            }
        };
        let players: Vec<_> = (0..players).map(|_| scope.spawn(play_all)).collect();
        players
            .into_iter()
            .flat_map(|player| player.join().expect("a player only plays"))
            .collect()
    });
    let all = seeds.end - seeds.start;
    let Some((seed, reason)) = failed.iter().min() else {
        println!("test-cases: {all} of {all}");
        return;
    };
    let trace = Trace::default();
    let again = play(*seed, &fixture, Some(&trace));
    panic!(
        "{}\nseed {seed}, {:?}: {reason}\n(with the trace: {again:?}; others: {:?})\n\
         play it again: XENPLUG_SEED={seed} cargo xtask test --package xenplugd --lib -- simulation",
        trace.text(),
        Plan::of(*seed),
        failed.iter().map(|(seed, _)| seed).collect::<Vec<_>>(),
    );
}

#[test]
fn seed_gives_the_same_trace_twice() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let fixture = fixture();
    for seed in 2000..2008 {
        let traces = [Trace::default(), Trace::default()];
        let outcomes = traces.each_ref().map(|trace| play(seed, &fixture, Some(trace)));
        assert_eq!(outcomes[0], outcomes[1], "seed {seed}");
        let [one, other] = traces.map(|trace| trace.text());
        assert!(one.lines().count() > 20, "seed {seed} has no trace: {one}");
        for (line, (one, other)) in one.lines().zip(other.lines()).enumerate() {
            assert_eq!(one, other, "seed {seed}, line {line}");
        }
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}

/// Runs a seed. Returns its violations as an error.
fn play(seed: u64, fixture: &Fixture, trace: Option<&Trace>) -> Result<(), String> {
    enact(story(seed, fixture), trace)
}

/// Runs a story on a thread whose clock jumps. Returns its violations as an error.
fn enact(story: impl Future<Output = Vec<String>>, trace: Option<&Trace>) -> Result<(), String> {
    watch_panics();
    PANIC.take();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let played = || LocalSet::new().block_on(&runtime, story);
    let violations = match trace {
        Some(trace) => tracing::dispatcher::with_default(&trace.log(), played),
        None => played(),
    };
    match PANIC.take() {
        Some(panic) => Err(panic),
        None if violations.is_empty() => Ok(()),
        None => Err(violations.join("\n")),
    }
}

/// The story of a seed: guests come and go while things fail; when that ends, every device is as it should be; when the
/// guests are gone, nothing is left.
async fn story(seed: u64, fixture: &Fixture) -> Vec<String> {
    let world = World::new(seed, Plan::of(seed), fixture);
    in_world(&world, fixture, async |checker| {
        let baseline = checker.baseline();
        world.storm(true);
        let (mut settled, mut slots) = (Vec::new(), Vec::new());
        let last = CancellationToken::new();
        for domain in GUESTS {
            let there = CancellationToken::new();
            let slot = Slot::new(Rc::clone(&world), domain).await;
            slots.push(spawn_local(slot.run(there.clone(), last.clone())));
            settled.push(there);
        }
        for there in settled {
            there.cancelled().await;
        }
        world.storm(false);
        checker.all_decided().await;
        last.cancel();
        for slot in slots {
            slot.await.expect("a toolstack goes on");
        }
        checker.all_gone(&baseline).await;
    })
    .await
}

/// Lets a story happen in a world with its kernel and its daemons, once a daemon serves. Returns the violations.
async fn in_world(world: &Rc<World>, fixture: &Fixture, happens: impl AsyncFnOnce(Checker)) -> Vec<String> {
    let end = CancellationToken::new();
    let played = async {
        prepare(world).await;
        let kernel = spawn_local(kernel::run(Rc::clone(world), end.clone()));
        let play = async {
            let checker = Checker::new(world).await;
            while world.daemon.borrow().upgrade().is_none() {
                sleep(Duration::from_secs(1)).await;
            }
            // It sets its watches.
            sleep(Duration::from_secs(1)).await;
            happens(checker).await;
        };
        tokio::select! {
            biased;
            () = world.over.cancelled() => {}
            () = play => {}
            () = daemon::run(Rc::clone(world), fixture, end.clone()) => {}
        }
        end.cancel();
        if let Err(error) = kernel.await {
            world.wrong(format!("the kernel: {error}"));
        }
    };
    if timeout(END, played).await.is_err() {
        world.wrong("the seed has no end");
    }
    world.violations()
}

/// Writes the store's nodes that exist before any guest.
async fn prepare(world: &World) {
    let store = StoreAccess::new(world).await;
    let own = world.own.0;
    let nodes = vec![("domid", own.to_string()), ("name", "backends".to_owned())];
    let permissions = [Permission::none(0), Permission::read(own)];
    store
        .make(&[
            (&format!("/local/domain/{own}"), &nodes, &permissions),
            (&format!("/local/domain/{own}/backend"), &Vec::new(), &permissions),
        ])
        .await;
}

/// Creates the configurations that name the handlers' components.
fn fixture() -> Fixture {
    let plugins = env::var_os("XENPLUG_PLUGINS").map(PathBuf::from);
    let plugins = plugins.expect("XENPLUG_PLUGINS is the folder of the handlers' components: run `cargo xtask test`");
    let fixture = Fixture::new();
    for mode in ["dom0", "driver-domain"] {
        let text = format!(
            r#"mode = "{mode}"
[paths]
plugins = {plugins:?}
cache = {:?}
[plugin.phy]
component = "phy.wasm"
kinds = ["vbd"]
scripts = ["block"]
grant = {{ block = [{{ path = "/srv", access = "rw" }}], loop = true }}
[plugin.vif-bridge]
component = "vif-bridge.wasm"
kinds = ["vif"]
scripts = ["vif-bridge"]
grant = {{ bridges = ["xenbr*"], firewall = true }}
"#,
            fixture.folder.path().join("cache"),
        );
        fs::write(fixture.folder.path().join(format!("{mode}.toml")), text).expect("a configuration is written");
    }
    fixture
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is {value:?}, and has to be a number")),
    )
}

/// Keeps panics, as those of tasks would go unseen.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            PANIC.set(Some(panic.to_string()));
            report(panic);
        }));
    });
}
