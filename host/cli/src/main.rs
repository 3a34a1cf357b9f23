//! xenplug: the operator's command.

mod devices;
mod scripts;
mod status;
mod watch;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use devices::{Attach, Detach, Prepare};
use scripts::Scripts;
use watch::Watch;
use xenplug_control::{Client, Settings};

/// Shows what xenplugd does, asks driver domains for devices, and puts the scripts' stand-ins in place.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 the command line, 3 not within the time."
)]
struct Arguments {
    /// The daemon's control socket [default: that of the configuration, /run/xenplug/control.sock without one].
    #[arg(long, global = true, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the devices: plugin, state, what is held, since when, last error.
    Status {
        /// As JSON, for programs. The fields are those of the control socket's /status.
        #[arg(long)]
        json: bool,
    },
    /// Shows the daemon's metrics, in the OpenMetrics text format.
    Metrics,
    /// Shows the devices, and what becomes of them, as it happens.
    #[command(long_about = watch::ABOUT)]
    Watch(Watch),
    /// Lets a domain serve devices that `xenplug attach` asks it for.
    #[command(long_about = devices::PREPARE)]
    Prepare(Prepare),
    /// Asks a driver domain for a disk or a network card of a guest.
    #[command(long_about = devices::ATTACH, after_long_help = devices::MORE)]
    Attach(Attach),
    /// Asks a driver domain to give a device back.
    #[command(long_about = devices::DETACH, after_long_help = devices::MORE)]
    Detach(Detach),
    /// Puts xenplug-script in the place of dom0's hotplug scripts, and takes it back.
    #[command(long_about = scripts::ABOUT, after_long_help = scripts::MORE)]
    Scripts(Scripts),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Daemon(#[from] xenplug_control::Error),
    #[error("no answer can be written: {0}")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Scripts(#[from] scripts::Error),
    #[error(transparent)]
    Devices(#[from] devices::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        // Whoever reads has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&with_causes(&failure));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut code = ExitCode::SUCCESS;
    let text = match &arguments.command {
        Command::Status { json } => {
            let status = runtime.block_on(client(arguments).status())?;
            if *json {
                serde_json::to_string_pretty(&status).map_err(io::Error::from)? + "\n"
            } else {
                status::table(&status)
            }
        }
        Command::Metrics => runtime.block_on(client(arguments).metrics())?,
        Command::Watch(watch) => match runtime.block_on(watch.run(&client(arguments))) {
            Ok(()) => return Ok(code),
            Err(watch::Failure::Daemon(error)) => return Err(error.into()),
            Err(watch::Failure::Output(error)) => return Err(error.into()),
        },
        Command::Prepare(prepare) => return Ok(runtime.block_on(prepare.run())?),
        Command::Attach(attach) => return Ok(runtime.block_on(attach.run())?),
        Command::Detach(detach) => return Ok(runtime.block_on(detach.run())?),
        Command::Scripts(scripts) => {
            let said = scripts.run(&runtime, arguments.socket.as_deref())?;
            said.complaints.iter().for_each(|complaint| complain(complaint));
            if said.failed {
                code = ExitCode::FAILURE;
            }
            said.text
        }
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(code)
}

/// The daemon, by the socket that is named here or in its configuration. It is the daemon that insists on a good one.
fn client(arguments: &Arguments) -> Client {
    if let Some(socket) = &arguments.socket {
        return Client::new(socket);
    }
    let settings = Settings::read(&Settings::file()).unwrap_or_else(|error| {
        complain(&format!("the default socket is used: {error}"));
        None
    });
    Client::new(&settings.unwrap_or_default().socket)
}

/// The text of an error and its causes. A cause that the text contains already is left out.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn complain(text: &str) {
    // Nobody else could be told.
    let _ = writeln!(io::stderr(), "xenplug: {text}");
}
