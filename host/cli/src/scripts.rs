//! `xenplug scripts`: installs, removes and lists the shims of dom0's hotplug scripts.

mod folder;
mod name;
mod report;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use folder::{Change, Folder, Locked};
use name::Name;
use xenplug_control::{Client, Settings, error_chain, script::SHIM};

/// Longest path of a program that every kernel accepts in a first line: 128 bytes with `#!` and a newline before
/// Linux 5.1 (linux/include/uapi/linux/binfmts.h, `BINPRM_BUF_SIZE`).
const PROGRAM_MAX: usize = 120;

/// Long help of the command.
pub(crate) const ABOUT: &str = "\
Installs and removes the shims of dom0's hotplug scripts.

A shim is a small text file under the script's name, which libxl runs as it ran the script: it calls xenplugd, which has to
run with mode = \"dom0\". The original stays beside it as NAME.xenplug-original and runs for the devices that it has set up
itself, and with scripts.fallback = \"original\" while xenplugd is away.

At every moment there is a complete script under the name, and the next run completes an interrupted one.";

/// Closing help of the command.
pub(crate) const MORE: &str = "\
States:
  shim      the shim is installed
  original  the original is in place and none is saved
  missing   there is no script: the package with the original is not installed, or somebody has removed the shim
  outdated  the shim names another program or was edited; install renews it
  changed   another script has replaced the shim, as a package's upgrade does, and an original is saved. Both install and
            uninstall keep the new script and rename the saved one to NAME.xenplug-old

After uninstalling the shims keep xenplugd running until the devices that it has set up are gone: it releases them when
they are removed, and the originals do not know the resources that it holds.

Exit codes: 0 done, 1 failed, 2 usage or configuration.";

/// `xenplug scripts`.
#[derive(Args)]
pub(crate) struct Scripts {
    #[command(subcommand)]
    command: Command,
    /// Folder of the hotplug scripts.
    #[arg(long, global = true, value_name = "FOLDER", default_value = "/etc/xen/scripts")]
    folder: PathBuf,
    /// Program that the shims run.
    #[arg(
        long,
        global = true,
        value_name = "PROGRAM",
        default_value = "/usr/lib/xenplug/xenplug-script"
    )]
    shim: PathBuf,
    /// Configuration of the daemon [default: $XENPLUG_CONFIG, else /etc/xenplug/xenplugd.toml].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Installs shims and keeps the originals.
    Install {
        /// Scripts [default: all that the configuration's plugins replace, and vif-setup with those for vifs].
        #[arg(value_name = "NAME")]
        names: Vec<Name>,
    },
    /// Restores the originals, the very same files.
    Uninstall {
        /// Scripts [default: all that have a shim].
        #[arg(value_name = "NAME")]
        names: Vec<Name>,
    },
    /// Shows the state of each script and its original, and whether the shims can work.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Error before any script was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Settings(#[from] xenplug_control::SettingsError),
    #[error(
        "{file}: mode is not \"dom0\": in a driver domain xenplugd replaces `xl devd`, and no script is run",
        file = .0.display()
    )]
    Mode(PathBuf),
    #[error("no script is named, and no plugin of {file} replaces one", file = .0.display())]
    Nothing(PathBuf),
    #[error("the configuration names a script that cannot be replaced")]
    Name(#[from] name::Error),
    #[error("{program} cannot be a shim: {why}", program = .program.display())]
    Program { program: PathBuf, why: String },
    #[error(transparent)]
    Folder(#[from] folder::Error),
    #[error("cannot format the status")]
    Json(#[from] serde_json::Error),
}

/// Output of a run.
pub(crate) struct Output {
    /// Text for standard output.
    pub(crate) text: String,
    /// Errors and warnings, a line each.
    pub(crate) warnings: Vec<String>,
    /// A script could not be changed.
    pub(crate) failed: bool,
}

impl Error {
    /// Tells whether the command line or the configuration is wrong.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Settings(_) | Self::Mode(_) | Self::Nothing(_) | Self::Name(_) | Self::Program { .. }
        )
    }
}

impl Scripts {
    /// Runs the command. `socket` is the daemon's, if given on the command line.
    pub(crate) fn run(&self, runtime: &tokio::runtime::Runtime, socket: Option<&Path>) -> Result<Output, Error> {
        let folder = Folder::new(&self.folder, &self.shim);
        let status = |settings: &Settings| runtime.block_on(Client::new(socket.unwrap_or(&settings.socket)).status());
        match &self.command {
            Command::Install { names } => {
                let (settings, missing_file) = self.dom0()?;
                let mut names: BTreeSet<Name> = names.iter().cloned().collect();
                if names.is_empty() {
                    names = configured(&settings)?;
                    let dispatchers: Vec<Name> = names.iter().filter_map(Name::dispatcher).collect();
                    names.extend(
                        dispatchers
                            .into_iter()
                            .filter(|name| self.folder.join(name.as_str()).exists()),
                    );
                }
                if names.is_empty() {
                    return Err(Error::Nothing(self.config()));
                }
                check_program(&self.shim)?;
                let mut output = each(&folder, &names, Locked::install)?;
                output.warnings.extend(missing_file);
                if let Err(error) = status(&settings) {
                    output.warnings.push(error_chain(&error));
                }
                Ok(output)
            }
            Command::Uninstall { names } => {
                let mut names: BTreeSet<Name> = names.iter().cloned().collect();
                if names.is_empty() {
                    names.extend(folder.changed()?);
                }
                each(&folder, &names, Locked::uninstall)
            }
            Command::Status { json } => {
                let (settings, warning) = match Settings::read(&self.config()) {
                    Ok(settings) => (settings.unwrap_or_default(), None),
                    Err(error) => (Settings::default(), Some(error_chain(&error))),
                };
                let mut names: BTreeSet<Name> = folder.changed()?.into_iter().collect();
                // `install` reports invalid names.
                names.extend(settings.scripts.iter().filter_map(|name| name.parse::<Name>().ok()));
                let report = report::Report {
                    scripts: names
                        .into_iter()
                        .map(|name| Ok((folder.slot(&name)?, name)))
                        .collect::<Result<_, folder::Error>>()?,
                    unreplaced: name::unreplaced(&self.folder),
                    folder: &self.folder,
                    program: &self.shim,
                    unusable: check_program(&self.shim).err().map(|error| error_chain(&error)),
                    daemon: status(&settings),
                    settings: &settings,
                };
                Ok(Output {
                    text: if *json {
                        serde_json::to_string_pretty(&report.json())? + "\n"
                    } else {
                        report.table()
                    },
                    warnings: warning.into_iter().collect(),
                    failed: false,
                })
            }
        }
    }

    fn config(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(Settings::file)
    }

    /// Reads the configuration, which has to be dom0's. A package may install the shims before there is one, which is only a
    /// warning.
    fn dom0(&self) -> Result<(Settings, Option<String>), Error> {
        let file = self.config();
        match Settings::read(&file)? {
            Some(settings) if settings.mode.as_deref() == Some("dom0") => Ok((settings, None)),
            Some(_) => Err(Error::Mode(file)),
            None => {
                let missing_file = format!("xenplugd has no configuration: there is no {}", file.display());
                Ok((Settings::default(), Some(missing_file)))
            }
        }
    }
}

/// Returns the scripts that the configuration's plugins replace.
fn configured(settings: &Settings) -> Result<BTreeSet<Name>, name::Error> {
    settings.scripts.iter().map(|name| name.parse()).collect()
}

/// Changes each script, also after one has failed.
fn each<'a>(
    folder: &'a Folder,
    names: &BTreeSet<Name>,
    change: fn(&Locked<'a>, &Name) -> Result<Change, folder::Error>,
) -> Result<Output, Error> {
    let locked = folder.lock()?;
    let mut output = Output {
        text: String::new(),
        warnings: Vec::new(),
        failed: false,
    };
    for name in names {
        match change(&locked, name) {
            Ok(changed) => output.text += &format!("{name}: {}\n", report::describe(changed, name)),
            Err(error) => {
                output.warnings.push(format!("{name}: {}", error_chain(&error)));
                output.failed = true;
            }
        }
    }
    Ok(output)
}

/// Checks that the kernel would run the program as an interpreter.
fn check_program(program: &Path) -> Result<(), Error> {
    let unusable = |why: &str| Error::Program {
        program: program.to_owned(),
        why: why.to_owned(),
    };
    let text = program.to_str().ok_or_else(|| unusable("its path is not UTF-8"))?;
    if !program.is_absolute() || text.len() > PROGRAM_MAX || text.contains(char::is_whitespace) {
        return Err(unusable(
            "a first line takes an absolute path of at most 120 bytes without spaces",
        ));
    }
    if program.file_name() != Some(SHIM.as_ref()) {
        return Err(unusable("it is not named xenplug-script, which identifies a shim"));
    }
    match fs::metadata(program) {
        Ok(facts) if facts.is_file() && facts.permissions().mode() & 0o111 == 0o111 => Ok(()),
        Ok(_) => Err(unusable("it is not a program that everybody may run")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unusable("it is not there")),
        Err(error) => Err(unusable(&error.to_string())),
    }
}
