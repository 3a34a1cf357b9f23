//! xenplug-script: what runs in the place of a hotplug script of `/etc/xen/scripts`, and asks xenplugd instead.
//!
//! A stand-in is a text file whose first line names this program, so that the kernel runs
//! `xenplug-script /etc/xen/scripts/block add`; `xenplug scripts install` puts it there. Arguments, environment and what
//! comes of it are those of the original (tools/hotplug/Linux, and libxl_linux.c which runs it).

mod directory;
mod fallback;
mod invocation;

use std::{
    env,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use directory::{Teller, Told};
use fallback::Outcome;
use invocation::{Invocation, Run, Task};
use xenplug_control::{
    Settings,
    script::{self, Call, ScriptAction, saved_original},
};

/// How long the daemon is waited for: a second more than it takes at most, and short of the 40 s after which libxl kills
/// a script (libxl_internal.h, `LIBXL_HOTPLUG_TIMEOUT`), as the store is still to be told.
const PATIENCE: Duration = Duration::from_secs(38);

/// How much of an error is told: a node holds 2048 bytes.
const ERROR_MAX: usize = 1000;

const HELP: &str = "\
Stands in for a hotplug script of /etc/xen/scripts, and asks xenplugd instead.

It is not run by hand: `xenplug scripts install` puts it in a script's place, as the interpreter of a file of the
script's name, and libxl (or udev) runs that file.

Usage: xenplug-script SCRIPT add|remove|online|offline [type_if=vif|tap] [NAME=VALUE]...

Environment:
  XENBUS_PATH     the backend's directory in xenstore, such as backend/vbd/3/51712
  INTERFACE       with type_if=tap, the tap of an emulated card, such as vif3.0-emu
  bridge, dhcp, ip, netdev
                  what xenplugd is told besides; an argument NAME=VALUE wins over the environment
  XENSTORED_PATH  the store's socket or device, if it is not where libxenstore looks
  XENPLUG_CONFIG  the daemon's configuration [/etc/xenplug/xenplugd.toml], which says where its control socket is
                  (paths.run), and what to do when it is away (scripts.fallback):
                    \"fail\"      fail at once, and say so in the store; this is the default
                    \"original\"  run the original script, SCRIPT.xenplug-original

In the place of vif-setup it runs the script that $script names, or else vif-bridge, as that does.

A device that is none of xenplugd's is taken down by the original script.

Exit codes: 0 done, 1 failed, 2 not run as a script is.
";

/// Why the script fails.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}; see --help")]
    Usage(#[from] invocation::Error),
    #[error("{script} {action} {backend}: {error}", script = .0.script, action = word(.0.action), backend = .0.backend, error = .1)]
    Device(Call, String),
    #[error("{script} cannot be run: {error}", script = .0.display(), error = .1)]
    Other(PathBuf, io::Error),
    #[error("no answer can be written: {0}")]
    Output(#[from] io::Error),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            match failure {
                Failure::Usage(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run() -> Result<(), Failure> {
    let run = match Invocation::of(env::args_os().skip(1), |name| env::var_os(name))? {
        Invocation::Help => return Ok(io::stdout().write_all(HELP.as_bytes())?),
        Invocation::Version => {
            return Ok(writeln!(io::stdout(), "xenplug-script {}", env!("CARGO_PKG_VERSION"))?);
        }
        Invocation::Run(run) => run,
    };
    match &run.task {
        Task::Nothing => Ok(()),
        Task::Become(script, arguments) => Err(Failure::Other(
            script.clone(),
            Command::new(script).args(arguments).exec(),
        )),
        Task::Ask(call) => plug(&run, call),
    }
}

fn plug(run: &Run, call: &Call) -> Result<(), Failure> {
    let settings = settings();
    let heard = script::send(&settings.socket, call, PATIENCE);
    let has_original = saved_original(&run.script).exists();
    let (error, teller) = match fallback::of(call.action, heard, settings.fallback, has_original) {
        Outcome::Done => return Ok(()),
        Outcome::Original => (become_original(run), Teller::StandIn),
        Outcome::Failed(error) => (error, Teller::Daemon),
        Outcome::Untold(error) => (error, Teller::StandIn),
    };
    let error = one_line(&error);
    // Nobody reads the reason of a removal that failed (libxl_device.c, `device_hotplug_done`).
    if call.action == ScriptAction::Remove {
        return Err(Failure::Device(call.clone(), error));
    }
    let error = match directory::tell(&call.backend, &error, teller, call.emulated) {
        Ok(Told::Connected) => return Ok(()),
        Ok(Told::Written) => error,
        Ok(Told::Gone) => format!("{error}; and the device's directory has gone"),
        Err(untold) => {
            let cause = std::error::Error::source(&untold).map_or_else(String::new, |cause| format!(": {cause}"));
            format!("{error}; and the store cannot be told: {untold}{cause}")
        }
    };
    Err(Failure::Device(call.clone(), error))
}

/// The daemon's configuration. It is the daemon that insists on a good one.
fn settings() -> Settings {
    match Settings::read(&Settings::file()) {
        Ok(settings) => settings.unwrap_or_default(),
        Err(error) => {
            say(&format!("the defaults are used: {error}"));
            Settings::default()
        }
    }
}

/// Becomes the original script, with the same arguments and environment. Says why that cannot be.
fn become_original(run: &Run) -> String {
    let original = saved_original(&run.script);
    let error = Command::new(&original).args(&run.arguments).exec();
    format!("the original cannot be run: {}: {error}", original.display())
}

fn say(text: &str) {
    // Nobody else could be told.
    let _ = writeln!(io::stderr(), "xenplug-script: {}", one_line(text));
}

/// A text as one line of bounded length, whatever a daemon of another version put into it.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|sign: char| sign.is_whitespace() || sign.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let line = words.join(" ");
    line[..line.floor_char_boundary(ERROR_MAX)].to_owned()
}

fn word(action: ScriptAction) -> &'static str {
    match action {
        ScriptAction::Add => "add",
        ScriptAction::Remove => "remove",
    }
}
