//! xenplugd: plugs and unplugs the disks and network cards of Xen guests through sandboxed handlers.

mod config;
mod context;
mod control;
mod device;
mod directory;
mod dispatch;
mod domains;
mod foreign_disks;
mod hotplug;
mod logging;
mod metrics;
mod plugins;
mod recovery;
mod registry;
mod retry;
mod script;
mod services;
mod simulated;
#[cfg(test)]
mod tests;
mod workers;

use std::{
    io::{self, Read, Write},
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
    sync::mpsc::UnboundedReceiver,
    task::{JoinHandle, LocalSet, spawn_blocking, spawn_local},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use xenplug_journal::Journal;
use xenplug_runtime::Engine;
use xenplug_system::Platform;
use xenplug_xenbus::{DeviceInstance, Mode};
use xenplug_xenstore::{Client, Endpoint};

use crate::{
    config::Config,
    context::{Basis, DaemonContext},
    device::ScriptCall,
    dispatch::Dispatch,
    foreign_disks::Question,
    plugins::{PluginSet, load::Loader},
    retry::Pauses,
    workers::Workers,
};

/// How long devices may take to finish what they are at when the daemon ends.
const DRAIN: Duration = Duration::from_secs(20);
/// How long whoever asked something on the control socket may take after that to hear the answer.
const HEAR: Duration = Duration::from_secs(1);

/// Plugs and unplugs the disks and network cards of Xen guests through sandboxed handlers.
///
/// Runs in the foreground. SIGTERM lets the devices finish what they are at and ends the daemon; what is connected stays
/// connected. SIGHUP reads the configuration again, for the devices to come.
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
    /// How to write the log; the default is the journal under systemd, else text.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<logging::Format>,
    /// Check the configuration and the plugins, and end.
    #[arg(long)]
    check: bool,
    /// Plug into a machine that exists only in memory, for trying things out without root. FILE is TOML: `files = [{
    /// path = "/srv/a.img", size = "64MiB" }]`, `bridges = ["xenbr0"]`, `links = ["vif3.0"]`.
    #[arg(long, value_name = "FILE")]
    simulated: Option<PathBuf>,
}

/// The program. Its arguments and exit codes are those of `xenplugd --help`.
pub fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == plugins::load::COMPILE)
    {
        return compile();
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
            error!("{error}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, config: Config) -> anyhow::Result<()> {
    let system = match &arguments.simulated {
        Some(description) => simulated::machine(description)?,
        None => Platform::linux()?,
    };
    xenplug_system::raise_descriptors()?;
    // In dom0 the original scripts may be plugging devices as well.
    let system = match config.mode {
        Mode::Dom0 if arguments.simulated.is_none() => system.beside_scripts(),
        Mode::Dom0 | Mode::DriverDomain => system,
    };
    let (shared, told, questions) = services::shared(config.mode);
    let loader = Arc::new(Loader::new(&config, system.clone(), Arc::clone(&shared))?);
    // One thread for the store and the devices' tasks, so that an event passes through without changing threads; what
    // blocks runs on threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mode, paths) = (config.mode, config.paths.clone());
    LocalSet::new().block_on(&runtime, async {
        let plugins = load(&loader, config).await?;
        if arguments.check {
            info!("the configuration and its plugins are good");
            return Ok(());
        }
        let client = Client::connect(Endpoint::from_env()).await?;
        let journal = Journal::open(&paths.run.join("journal"))
            .context("xenplugd is already running here, or its journal cannot be used")?;
        let control = paths.run.join("control.sock");
        let listener = control::bind(&control).with_context(|| format!("{}", control.display()))?;
        let (host, asked) = DaemonContext::new(Basis {
            mode,
            client,
            system,
            journal,
            shared,
            plugins,
            workers: Workers::Threads,
        })
        .await?;
        spawn_local(services::answer(Arc::clone(&host), told));
        serve(host, &arguments.config, loader, listener, asked, questions).await?;
        let _ = std::fs::remove_file(control);
        Ok(())
    })
}

/// Loads the plugins on a thread that may block.
async fn load(loader: &Arc<Loader>, config: Config) -> anyhow::Result<PluginSet> {
    let loader = Arc::clone(loader);
    spawn_blocking(move || loader.load(config)).await?
}

/// Serves until a signal ends it.
async fn serve(
    host: Arc<DaemonContext>,
    file: &Path,
    loader: Arc<Loader>,
    listener: UnixListener,
    asked: UnboundedReceiver<(DeviceInstance, ScriptCall)>,
    questions: UnboundedReceiver<Question>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut dispatching = begin(&host, asked, questions).await?;
    spawn_local(services::tend(Arc::clone(&host)));
    spawn_local(logging::tell_of_floods());
    let heard = CancellationToken::new();
    let control = tokio::spawn(control::serve(listener, Arc::clone(&host), heard.clone()));
    info!(domain = host.own.0, store = %host.client.endpoint(), "serving");
    spawn_local(be_ready());
    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hangup.recv() => reload(&host, file, &loader).await,
            _ = &mut dispatching => break Err(anyhow::anyhow!("the store can no longer be watched")),
        }
    };
    info!("ending; what is connected stays connected");
    let _ = notify(&[NotifyState::Stopping]);
    drain(&host).await;
    heard.cancel();
    if timeout(HEAR, control).await.is_err() {
        warn!("somebody does not take the answer on the control socket");
    }
    ended
}

/// Begins to serve devices: those that an earlier daemon left, and those that the store and scripts tell of.
async fn begin(
    host: &Arc<DaemonContext>,
    asked: UnboundedReceiver<(DeviceInstance, ScriptCall)>,
    questions: UnboundedReceiver<Question>,
) -> anyhow::Result<JoinHandle<()>> {
    let dispatch = Dispatch::begin(Arc::clone(host), questions).await?;
    recovery::run(host).await?;
    spawn_local(script::pass_on(Arc::clone(host), asked));
    spawn_local(hotplug::follow(Arc::clone(host)));
    Ok(spawn_local(dispatch.run()))
}

/// Lets the devices finish what they are at.
async fn drain(host: &DaemonContext) {
    host.draining.cancel();
    host.tasks.close();
    if timeout(DRAIN, host.tasks.wait()).await.is_err() {
        warn!("some devices did not finish; the next start goes on from the journal");
    }
}

/// Reads the configuration again. If it is not good, what is there stays.
async fn reload(host: &Arc<DaemonContext>, file: &Path, loader: &Arc<Loader>) {
    let _ = notify(&[NotifyState::Reloading]);
    let plugins = match Config::load(file) {
        Ok(config) => load(loader, config).await,
        Err(error) => Err(error.into()),
    };
    match plugins {
        Ok(plugins) => {
            host.plugins.replace(plugins);
            info!(file = %file.display(), "the configuration was read again");
        }
        Err(error) => error!("the configuration stays as it was: {}", one_line(&error)),
    }
    spawn_local(be_ready());
}

/// Tells systemd that the daemon serves, which it waits for: until it has been told.
async fn be_ready() {
    let mut pauses = Pauses::default();
    while notify(&[NotifyState::Ready]).is_err() {
        sleep(pauses.next()).await;
    }
}

fn notify(state: &[NotifyState<'_>]) -> io::Result<()> {
    sd_notify::notify(state).inspect_err(|error| warn!(?state, %error, "systemd was not told"))
}

/// An error and its causes, each said once: some name their cause themselves.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&cause);
        }
    }
    line
}

/// Compiles one component, from standard input to standard output: in a process of its own, so that what a hostile
/// component does to the compiler ends with it.
fn compile() -> ExitCode {
    let compiled = (|| {
        xenplug_system::confine_compiler().map_err(|error| error.to_string())?;
        let mut component = Vec::new();
        io::stdin()
            .read_to_end(&mut component)
            .map_err(|error| error.to_string())?;
        let code = Engine::compile(&component)?;
        io::stdout().write_all(&code).map_err(|error| error.to_string())
    })();
    match compiled {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            let _ = writeln!(io::stderr(), "{reason}");
            ExitCode::FAILURE
        }
    }
}
