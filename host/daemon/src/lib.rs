//! xenplugd: connects and disconnects the disks and vifs of Xen guests through sandboxed handlers.

mod chain;
mod compile;
mod config;
mod context;
mod control;
mod daemon;
mod device;
mod device_requests;
mod dispatch;
mod domains;
mod foreign_disks;
mod helpers;
mod keyed_tasks;
mod logging;
mod metrics;
mod plugins;
mod request_index;
mod retry;
mod store_bridge;
#[cfg(test)]
mod tests;
mod workers;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use sd_notify::NotifyState;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use xenplug_journal::Journal;
use xenplug_runtime::SharedResources;
use xenplug_system::Platform;
use xenplug_xenbus::Mode;
use xenplug_xenstore::{Client, Endpoint};

use crate::{
    chain::Chain,
    config::Config,
    context::DaemonContext,
    daemon::Daemon,
    plugins::{PluginSet, load::Loader},
    retry::Pauses,
    store_bridge::StoreBridge,
    workers::Workers,
};

/// The time after the drain in which clients of the control socket can read their answers.
const ANSWERS: Duration = Duration::from_secs(1);

/// Connects and disconnects the disks and vifs of Xen guests through sandboxed handlers.
///
/// Runs in the foreground. SIGTERM lets the devices finish their operations in flight and ends the daemon; connected devices
/// stay connected. SIGHUP reads the configuration again, for handlers that start afterwards.
///
/// The store is found at XENSTORED_PATH, else /run/xenstored/socket, else /dev/xen/xenbus. XENPLUG_LOG filters the log
/// (default: info).
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 ended by a signal, 1 failed, 2 the command line or the configuration."
)]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/xenplug/xenplugd.toml")]
    config: PathBuf,
    /// The form of the log; the default is the journal under systemd, else text.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<logging::Format>,
    /// Check the configuration and the plugins, and exit.
    #[arg(long)]
    check: bool,
}

/// Runs the program. Its arguments and exit codes are those of `xenplugd --help`.
pub fn main() -> ExitCode {
    main_on(|mode| {
        let platform = Platform::linux()?;
        Ok(match mode {
            // The original scripts may set up devices as well.
            Mode::Dom0 => platform.beside_scripts(),
            Mode::DriverDomain => platform,
        })
    })
}

/// Runs the program on another platform than this host.
pub fn main_on(platform: impl FnOnce(Mode) -> anyhow::Result<Platform>) -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == plugins::load::COMPILE)
    {
        return compile::run();
    }
    let arguments = Arguments::parse();
    logging::init(arguments.log_format);
    // A bug must not leave a device half done in memory: the journal knows more than a task that panicked, and the
    // restarted daemon works from it.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            error!("{}", Chain(&error));
            return ExitCode::from(2);
        }
    };
    match run(&arguments, config, platform) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", Chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(
    arguments: &Arguments,
    config: Config,
    platform: impl FnOnce(Mode) -> anyhow::Result<Platform>,
) -> anyhow::Result<()> {
    let platform = platform(config.mode)?;
    xenplug_system::raise_descriptors()?;
    let (bridge, questions) = StoreBridge::new(config.mode);
    let shared = Arc::new(SharedResources::new(bridge));
    let loader = Arc::new(Loader::new(&config, platform.clone(), Arc::clone(&shared))?);
    // One thread runs the store's client and the devices' tasks, so that an event passes through without a change of
    // threads. Blocking work runs on threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mode, paths) = (config.mode, config.paths.clone());
    LocalSet::new().block_on(&runtime, async {
        let workers = Workers::Threads;
        let plugins = load(&workers, &loader, config).await?;
        if arguments.check {
            info!("the configuration and its plugins are valid");
            return Ok(());
        }
        let store = Client::connect(Endpoint::from_env()).await?;
        let journal = Journal::open(&paths.run.join("journal"))
            .context("another xenplugd runs here, or its journal cannot be used")?;
        let socket = paths.run.join("control.sock");
        let listener = control::bind(&socket).with_context(|| format!("cannot bind {}", socket.display()))?;
        let context = DaemonContext::new(mode, store, platform, journal, workers).await?;
        let mut signals = Signals::new()?;
        let daemon = Daemon::start(context, plugins, shared, questions).await?;
        let ended = serve(daemon, &mut signals, &arguments.config, &loader, listener).await;
        if ended.is_ok() {
            let _ = std::fs::remove_file(socket);
        }
        ended
    })
}

/// Loads the plugins on a worker thread.
async fn load(workers: &Workers, loader: &Arc<Loader>, config: Config) -> anyhow::Result<PluginSet> {
    let loader = Arc::clone(loader);
    workers.run(move || loader.load(config)).await?
}

/// The signals that the daemon handles.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Serves until a signal ends the daemon.
async fn serve(
    mut daemon: Daemon,
    signals: &mut Signals,
    file: &Path,
    loader: &Arc<Loader>,
    listener: UnixListener,
) -> anyhow::Result<()> {
    spawn_local(logging::report_floods());
    let answered = CancellationToken::new();
    let control = control::serve(listener, Arc::clone(&daemon.control), answered.clone());
    let control = tokio::spawn(control);
    let (domain, endpoint) = {
        let context = &daemon.control.context;
        (context.own.0, context.store.endpoint())
    };
    info!(domain, "serving domain {domain} at {endpoint}");
    spawn_local(notify_ready());
    let ended = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Ok(()),
            _ = signals.interrupt.recv() => break Ok(()),
            _ = signals.hangup.recv() => reload(&daemon, file, loader).await,
            _ = &mut daemon.dispatch => break Err(anyhow::anyhow!("the store can no longer be watched")),
        }
    };
    info!("ending; connected devices stay connected");
    let _ = notify(&[NotifyState::Stopping]);
    daemon.drain().await;
    answered.cancel();
    if timeout(ANSWERS, control).await.is_err() {
        warn!("a client of the control socket does not read its answer");
    }
    ended
}

/// Reads the configuration again. An invalid one changes nothing.
async fn reload(daemon: &Daemon, file: &Path, loader: &Arc<Loader>) {
    let _ = notify(&[NotifyState::Reloading]);
    let control = &daemon.control;
    let plugins = match Config::load(file) {
        Ok(config) => load(&control.context.workers, loader, config).await,
        Err(error) => Err(error.into()),
    };
    match plugins {
        Ok(plugins) => {
            control.plugins.replace(plugins);
            info!("the configuration was read again: {}", file.display());
        }
        Err(error) => error!("the configuration stays as it was: {}", Chain(error.as_ref())),
    }
    spawn_local(notify_ready());
}

/// Notifies systemd, which waits for it, that the daemon is ready; tries until that succeeds.
async fn notify_ready() {
    let mut pauses = Pauses::default();
    while notify(&[NotifyState::Ready]).is_err() {
        sleep(pauses.next()).await;
    }
}

fn notify(state: &[NotifyState<'_>]) -> io::Result<()> {
    sd_notify::notify(state).inspect_err(|error| warn!("cannot notify systemd of {state:?}: {error}"))
}
