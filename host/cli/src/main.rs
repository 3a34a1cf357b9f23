//! xenplug: the operator's command.

mod devices;
mod exit;
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
use exit::{USAGE, complain};
use scripts::Scripts;
use watch::Watch;
use xenplug_control::{Client, Settings, error_chain};

/// Shows the state of xenplugd, attaches devices of driver domains, and installs the shims of the hotplug scripts.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 not in time."
)]
struct Arguments {
    /// Path of the daemon's control socket [default: from the configuration, else /run/xenplug/control.sock].
    #[arg(long, global = true, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the devices: plugin, state, start of the state, held resources, last error.
    Status {
        /// Print JSON with the fields of the control socket's /status.
        #[arg(long)]
        json: bool,
    },
    /// Shows the daemon's metrics, in the OpenMetrics text format.
    Metrics,
    /// Shows the devices and their changes as they happen.
    #[command(long_about = watch::ABOUT)]
    Watch(Watch),
    /// Prepares a domain to serve devices of `xenplug attach`.
    #[command(long_about = devices::PREPARE)]
    Prepare(Prepare),
    /// Attaches a disk or a vif of a driver domain to a guest.
    #[command(long_about = devices::ATTACH, after_long_help = devices::MORE)]
    Attach(Attach),
    /// Detaches a device of a driver domain.
    #[command(long_about = devices::DETACH, after_long_help = devices::MORE)]
    Detach(Detach),
    /// Installs and removes the shims of dom0's hotplug scripts.
    #[command(long_about = scripts::ABOUT, after_long_help = scripts::MORE)]
    Scripts(Scripts),
}

/// Error of a command.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Daemon(#[from] xenplug_control::Error),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Scripts(#[from] scripts::Error),
    #[error(transparent)]
    Devices(#[from] devices::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Scripts(error) if error.is_usage() => ExitCode::from(USAGE),
            _ => ExitCode::FAILURE,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        // The reader has closed the pipe.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&error_chain(&failure));
            failure.exit_code()
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
            let report = scripts.run(&runtime, arguments.socket.as_deref())?;
            report.warnings.iter().for_each(|warning| complain(warning));
            if report.failed {
                code = ExitCode::FAILURE;
            }
            report.text
        }
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(code)
}

/// Makes a client for the socket of the command line or the configuration. Only the daemon rejects a broken configuration.
fn client(arguments: &Arguments) -> Client {
    if let Some(socket) = &arguments.socket {
        return Client::new(socket);
    }
    let settings = Settings::read(&Settings::file()).unwrap_or_else(|error| {
        complain(&format!("the default socket is used: {}", error_chain(&error)));
        None
    });
    Client::new(&settings.unwrap_or_default().socket)
}
