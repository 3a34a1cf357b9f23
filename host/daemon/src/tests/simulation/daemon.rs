//! The daemons of a seed, one after the other: the real daemon without its process, its signals and its control socket.

use std::{rc::Rc, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    sync::mpsc,
    task::LocalSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use xenplug_journal::Journal;
use xenplug_runtime::{Cache, Compiler, SharedResources};
use xenplug_system::Platform;
use xenplug_xenbus::{DeviceKey, Kind};
use xenplug_xenstore::{Client, Options};

use super::{
    chance::Chance,
    store::StoreAccess,
    workers::Workers as Simulated,
    world::{Fixture, SentCall, World},
};
use crate::{
    ANSWERS, config::Config, context::DaemonContext, daemon::Daemon, plugins::load::Loader, store_bridge::StoreBridge,
    workers::Workers,
};

/// The pause before systemd starts a daemon again (`RestartSec` of the unit).
const RESTART: Duration = Duration::from_secs(1);

/// Runs daemons until the end of the seed, and kills and ends them at the seed's choice.
pub(super) async fn run(world: Rc<World>, fixture: &Fixture, end: CancellationToken) {
    let chance = Chance::of(world.seed, "operator");
    let store = StoreAccess::new(&world).await;
    loop {
        let (workers, killed) = world.workers.daemon();
        let stop = CancellationToken::new();
        let tasks = LocalSet::new();
        let daemon = tasks.run_until(daemon(&world, fixture, workers, stop.clone()));
        tokio::select! {
            biased;
            () = killed.cancelled() => world.say("killed in a call of the host"),
            () = misfortune(&world, &chance, &stop) => world.say("killed"),
            () = end.cancelled() => return,
            ended = daemon => match ended {
                Ok(()) => world.say("ended"),
                Err(error) => world.say(format!("failed: {error:#}")),
            }
        }
        drop(tasks);
        world.socket.take();
        harm(&world, &store, &chance).await;
        sleep(RESTART + chance.upto(if chance.permille(200) { 30_000 } else { 0 })).await;
    }
}

/// Harms the host while no daemon runs: sometimes, somebody deletes the link of a vif in use.
async fn harm(world: &World, store: &StoreAccess, chance: &Chance) {
    if !world.is_stormy() || world.plan.misfortune == 0 || !chance.permille(500) {
        return;
    }
    let vifs: Vec<DeviceKey> = world.made.borrow().keys().cloned().collect();
    for key in vifs.into_iter().filter(|key| key.kind == Kind::VIF) {
        let backend = world.backend(&key);
        let status = store.read(&format!("{backend}/hotplug-status")).await;
        if status.as_deref() != Some("connected") || store.number(&format!("{backend}/state")).await != 4 {
            continue;
        }
        if let Some(made) = world.made.borrow_mut().get_mut(&key) {
            world.say(format!("{key}: somebody deletes its link"));
            world.host.remove_link(&world.link(&key));
            made.harmed = true;
        }
    }
}

/// Lets misfortunes happen to a daemon. Returns when it is to be killed.
async fn misfortune(world: &World, chance: &Chance, stop: &CancellationToken) {
    loop {
        let rest = match world.plan.misfortune {
            0 => return std::future::pending().await,
            longest => chance.between(1, longest),
        };
        sleep(rest).await;
        if !world.is_stormy() {
            continue;
        }
        match chance.below(6) {
            0 | 1 => return,
            2 => {
                world.say("the operator ends the daemon");
                stop.cancel();
            }
            3 => {
                world.say("the connection to the store is cut");
                world.transport.cut();
            }
            4 => {
                world.say("the store is away");
                let _back = Away::new(world);
                sleep(chance.upto(5000)).await;
            }
            _ => {
                world.say("time jumps");
                world.jumps.set(world.jumps.get() + 1);
                tokio::time::advance(chance.upto(7_200_000)).await;
            }
        }
    }
}

/// Keeps the store away until it is dropped.
struct Away<'a>(&'a World);

impl<'a> Away<'a> {
    fn new(world: &'a World) -> Self {
        world.transport.close(true);
        world.transport.cut();
        Self(world)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        self.0.transport.close(false);
    }
}

/// Runs one daemon until `stop`: see `run` and `serve` of the program.
async fn daemon(world: &World, fixture: &Fixture, workers: Simulated, stop: CancellationToken) -> anyhow::Result<()> {
    let config = Config::load(&world.config)?;
    let mode = config.mode;
    let (bridge, questions) = StoreBridge::new(mode);
    let shared = Arc::new(SharedResources::new(bridge));
    let platform: Platform = world.host.system();
    let loader = Loader {
        engine: fixture.engine.clone(),
        cache: Cache::open(&config.paths.cache, Compiler::InProcess)?,
        platform: platform.clone(),
        shared: Arc::clone(&shared),
    };
    let workers = Workers::Simulated(workers);
    let plugins = workers.run(move || loader.load(config)).await??;
    let mut options = Options::default();
    options.seed = Some(world.seed);
    let store = Client::connect_with(world.transport.endpoint(), options).await?;
    let journal = Journal::open(&world.journal()).context("the journal")?;
    let context = DaemonContext::new(mode, store, platform, journal, workers).await?;
    let mut daemon = Daemon::start(context, plugins, shared, questions).await?;
    world.daemon.replace(Arc::downgrade(&daemon.control));
    let (socket, mut calls) = mpsc::unbounded_channel::<SentCall>();
    world.socket.replace(Some(socket));
    world.say("serving");
    let callers = TaskTracker::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut daemon.dispatch => anyhow::bail!("the store can no longer be watched"),
            () = stop.cancelled() => break,
            Some((call, answer)) = calls.recv() => {
                let control = Arc::clone(&daemon.control);
                callers.spawn_local(async move { answer.send(control.scripts.answer(call).await) });
            }
        }
    }
    daemon.drain().await;
    callers.close();
    let _ = timeout(ANSWERS, callers.wait()).await;
    Ok(())
}
