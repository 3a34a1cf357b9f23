//! xenplug: the operator's command.

mod status;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use xenplug_control::{Client, DEFAULT_SOCKET};

/// Shows what xenplugd does.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 done, 1 failed, 2 the command line.")]
struct Arguments {
    /// The daemon's control socket.
    #[arg(long, global = true, value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
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
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Daemon(#[from] xenplug_control::Error),
    #[error("no answer can be written: {0}")]
    Output(#[from] io::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "xenplug: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = Client::new(&arguments.socket);
    let text = match arguments.command {
        Command::Status { json } => {
            let status = runtime.block_on(client.status())?;
            if json {
                serde_json::to_string_pretty(&status).map_err(io::Error::from)? + "\n"
            } else {
                status::table(&status)
            }
        }
        Command::Metrics => runtime.block_on(client.metrics())?,
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}
