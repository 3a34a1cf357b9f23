//! xenplug-script: the shim that replaces a hotplug script of `/etc/xen/scripts` and calls xenplugd instead.
//!
//! The file in `/etc/xen/scripts` is a text file whose first line names this program, so that the kernel runs
//! `xenplug-script /etc/xen/scripts/block add`; `xenplug scripts install` creates it. Arguments, environment and effects are
//! those of the original (tools/hotplug/Linux, and libxl_linux.c which runs it).

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

use directory::{ErrorSource, Written};
use fallback::Outcome;
use invocation::{Invocation, Run, Task};
use xenplug_control::{
    Settings, error_chain,
    script::{self, Call, ScriptAction, saved_original},
};

/// Time to wait for the daemon: a second more than it takes at most, and less than the 40 s after which libxl kills a script
/// (libxl_internal.h, `LIBXL_HOTPLUG_TIMEOUT`), since the error still has to be written to the store.
const TIMEOUT: Duration = Duration::from_secs(38);

/// Longest error in bytes; a node has at most 2048.
const ERROR_MAX: usize = 1000;

const HELP: &str = "\
Replaces a hotplug script of /etc/xen/scripts and calls xenplugd instead.

It is not run by hand: `xenplug scripts install` makes it the interpreter of a file with the script's name, and libxl
(or udev) runs that file.

Usage: xenplug-script SCRIPT add|remove|online|offline [type_if=vif|tap] [NAME=VALUE]...

Environment:
  XENBUS_PATH     the backend's directory in xenstore, such as backend/vbd/3/51712
  INTERFACE       with type_if=tap, the tap of an emulated vif, such as vif3.0-emu
  bridge, dhcp, ip, netdev
                  parameters for xenplugd; an argument NAME=VALUE overrides the environment
  XENSTORED_PATH  the store's socket or device, if not the default of libxenstore
  XENPLUG_CONFIG  the daemon's configuration [/etc/xenplug/xenplugd.toml], which says where its control socket is
                  (paths.run), and what to do when it is away (scripts.fallback):
                    \"fail\"      fail at once, and say so in the store; this is the default
                    \"original\"  run the original script, SCRIPT.xenplug-original

As vif-setup it runs the script that $script names, or else vif-bridge.

The original script removes a device that xenplugd does not serve.

Exit codes: 0 done, 1 failed, 2 usage.
";

/// Error of the script.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("invalid invocation (see --help)")]
    Usage(#[from] invocation::Error),
    #[error("{script} {action} {backend}: {error}", script = .0.script, action = verb(.0.action), backend = .0.backend, error = .1)]
    Device(Call, String),
    #[error("cannot run {script}", script = .0.display())]
    Other(PathBuf, #[source] io::Error),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&error_chain(&failure));
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
        Task::Call(call) => call_daemon(&run, call),
    }
}

fn call_daemon(run: &Run, call: &Call) -> Result<(), Failure> {
    let settings = settings();
    let answer = script::send(&settings.socket, call, TIMEOUT);
    let has_original = saved_original(&run.script).exists();
    let (error, source) = match fallback::of(call.action, answer, settings.fallback, has_original) {
        Outcome::Done => return Ok(()),
        Outcome::Original => (become_original(run), ErrorSource::Shim),
        Outcome::Failed(error) => (error, ErrorSource::Daemon),
        Outcome::FailedUnwritten(error) => (error, ErrorSource::Shim),
    };
    let error = single_line(&error);
    // libxl ignores the error of a failed removal (libxl_device.c, `device_hotplug_done`).
    if call.action == ScriptAction::Remove {
        return Err(Failure::Device(call.clone(), error));
    }
    let error = match directory::write_error(&call.backend, &error, source, call.emulated) {
        Ok(Written::Connected) => return Ok(()),
        Ok(Written::Error) => error,
        Ok(Written::Gone) => format!("{error}; and the device's directory has gone"),
        Err(unwritten) => format!(
            "{error}; and it cannot be written to the store: {}",
            error_chain(&unwritten)
        ),
    };
    Err(Failure::Device(call.clone(), error))
}

/// Reads the daemon's configuration, or uses the defaults: only the daemon rejects a broken one.
fn settings() -> Settings {
    match Settings::read(&Settings::file()) {
        Ok(settings) => settings.unwrap_or_default(),
        Err(error) => {
            say(&format!("the defaults are used: {}", error_chain(&error)));
            Settings::default()
        }
    }
}

/// Becomes the original script, with the same arguments and environment. Returns the error.
fn become_original(run: &Run) -> String {
    let original = saved_original(&run.script);
    let error = Command::new(&original).args(&run.arguments).exec();
    format!("cannot run the original {}: {error}", original.display())
}

fn say(text: &str) {
    // There is nowhere else to report to.
    let _ = writeln!(io::stderr(), "xenplug-script: {}", single_line(text));
}

/// Makes a text fit for a node: one line of bounded length, even from a daemon of another version.
fn single_line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|sign: char| sign.is_whitespace() || sign.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let line = words.join(" ");
    line[..line.floor_char_boundary(ERROR_MAX)].to_owned()
}

fn verb(action: ScriptAction) -> &'static str {
    match action {
        ScriptAction::Add => "add",
        ScriptAction::Remove => "remove",
    }
}
