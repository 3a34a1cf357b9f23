//! `xenplug scripts`: puts the stand-ins for dom0's hotplug scripts in place, takes them back, and tells how it stands.

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
use xenplug_control::{Client, Settings, script::SHIM};

/// The longest path of a program that every kernel takes in a first line: 128 bytes with `#!` and a newline before
/// Linux 5.1 (linux/include/uapi/linux/binfmts.h, `BINPRM_BUF_SIZE`).
const PROGRAM_MAX: usize = 120;

/// What the command is for.
pub(crate) const ABOUT: &str = "\
Puts xenplug-script in the place of dom0's hotplug scripts, and takes it back.

A stand-in is a small text file under the script's name, which libxl runs as it ran the script: it asks xenplugd, which
has to run with mode = \"dom0\". The original stays beside it as NAME.xenplug-original, and is run for the devices that it
has set up itself, and with scripts.fallback = \"original\" while xenplugd is away.

At every moment a whole script is in its place, and what was interrupted is completed by the next run.";

/// What there is to know besides.
pub(crate) const MORE: &str = "\
States:
  stand-in  a stand-in is in the script's place
  original  the original is, and none is saved
  missing   nothing is: the package with the original is not installed, or somebody has removed the stand-in
  outdated  a stand-in is that names another program or was edited; install renews it
  changed   another script is, though an original is saved: a package's upgrade has replaced the stand-in. Both install
            and uninstall keep the new one, and rename what was saved to NAME.xenplug-old

After the stand-ins are taken back, keep xenplugd running until the devices that it has set up have gone: it releases
them when they go, and the originals do not know what it holds.

Exit codes: 0 done, 1 failed, 2 the command line.";

/// `xenplug scripts`.
#[derive(Args)]
pub(crate) struct Scripts {
    #[command(subcommand)]
    command: Command,
    /// Where the hotplug scripts are.
    #[arg(long, global = true, value_name = "FOLDER", default_value = "/etc/xen/scripts")]
    folder: PathBuf,
    /// The program that stands in for them.
    #[arg(
        long,
        global = true,
        value_name = "PROGRAM",
        default_value = "/usr/lib/xenplug/xenplug-script"
    )]
    stand_in: PathBuf,
    /// The daemon's configuration [default: $XENPLUG_CONFIG, else /etc/xenplug/xenplugd.toml].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Puts stand-ins in the place of scripts, and keeps the originals.
    Install {
        /// The scripts; without any, all that the configuration's plugins stand in for, and with those for cards vif-setup.
        #[arg(value_name = "NAME")]
        names: Vec<Name>,
    },
    /// Puts the originals back: the very same files.
    Uninstall {
        /// The scripts; without any, all that have a stand-in.
        #[arg(value_name = "NAME")]
        names: Vec<Name>,
    },
    /// Shows for each script what is in its place and where its original is, and whether all that a stand-in needs is
    /// there.
    Status {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
}

/// Why nothing could be begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Settings(#[from] xenplug_control::SettingsError),
    #[error(
        "{file}: mode is not \"dom0\": in a driver domain xenplugd plugs by itself, in the place of `xl devd`, and no \
         script is run",
        file = .0.display()
    )]
    Mode(PathBuf),
    #[error("no script is named, and no plugin of {file} stands in for one", file = .0.display())]
    Nothing(PathBuf),
    #[error("the configuration asks for a script that has no stand-in: {0}")]
    Name(#[from] name::Error),
    #[error("{program} cannot stand in for a script: {why}", program = .program.display())]
    Program { program: PathBuf, why: String },
    #[error(transparent)]
    Folder(#[from] folder::Error),
    #[error("the status cannot be put into JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What there is to say about it.
pub(crate) struct Said {
    /// For the standard output.
    pub(crate) text: String,
    /// What went wrong, or may go wrong, a line each.
    pub(crate) complaints: Vec<String>,
    /// Whether something went wrong.
    pub(crate) failed: bool,
}

impl Scripts {
    /// Does it. `socket` is the daemon's, if the operator names one.
    pub(crate) fn run(&self, runtime: &tokio::runtime::Runtime, socket: Option<&Path>) -> Result<Said, Error> {
        let folder = Folder::new(&self.folder, &self.stand_in);
        let ask = |settings: &Settings| runtime.block_on(Client::new(socket.unwrap_or(&settings.socket)).status());
        match &self.command {
            Command::Install { names } => {
                let (settings, absent) = self.dom0()?;
                let mut names: BTreeSet<Name> = names.iter().cloned().collect();
                if names.is_empty() {
                    names = named(&settings)?;
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
                check_program(&self.stand_in)?;
                let mut said = each(&folder, &names, Locked::install)?;
                said.complaints.extend(absent);
                if let Err(error) = ask(&settings) {
                    said.complaints.push(error.to_string());
                }
                Ok(said)
            }
            Command::Uninstall { names } => {
                let mut names: BTreeSet<Name> = names.iter().cloned().collect();
                if names.is_empty() {
                    names.extend(folder.touched()?);
                }
                each(&folder, &names, Locked::uninstall)
            }
            Command::Status { json } => {
                let (settings, complaint) = match Settings::read(&self.config()) {
                    Ok(settings) => (settings.unwrap_or_default(), None),
                    Err(error) => (Settings::default(), Some(error.to_string())),
                };
                let mut names: BTreeSet<Name> = folder.touched()?.into_iter().collect();
                // What the daemon would refuse is told by `install`.
                names.extend(settings.scripts.iter().filter_map(|name| name.parse::<Name>().ok()));
                let report = report::Report {
                    scripts: names
                        .into_iter()
                        .map(|name| Ok((folder.look(&name)?, name)))
                        .collect::<Result<_, folder::Error>>()?,
                    staying: name::staying(&self.folder),
                    folder: &self.folder,
                    program: &self.stand_in,
                    unusable: check_program(&self.stand_in).err(),
                    daemon: ask(&settings),
                    settings: &settings,
                };
                Ok(Said {
                    text: if *json {
                        serde_json::to_string_pretty(&report.json())? + "\n"
                    } else {
                        report.table()
                    },
                    complaints: complaint.into_iter().collect(),
                    failed: false,
                })
            }
        }
    }

    fn config(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(Settings::file)
    }

    /// The configuration, which is to be one for dom0. A package may put the stand-ins there before there is one: that is
    /// told.
    fn dom0(&self) -> Result<(Settings, Option<String>), Error> {
        let file = self.config();
        match Settings::read(&file)? {
            Some(settings) if settings.mode.as_deref() == Some("dom0") => Ok((settings, None)),
            Some(_) => Err(Error::Mode(file)),
            None => {
                let absent = format!("xenplugd has no configuration: there is no {}", file.display());
                Ok((Settings::default(), Some(absent)))
            }
        }
    }
}

/// The scripts that the configuration's plugins stand in for.
fn named(settings: &Settings) -> Result<BTreeSet<Name>, name::Error> {
    settings.scripts.iter().map(|name| name.parse()).collect()
}

/// Does the same to each script; one that fails does not keep the others from it.
fn each<'a>(
    folder: &'a Folder,
    names: &BTreeSet<Name>,
    act: fn(&Locked<'a>, &Name) -> Result<Change, folder::Error>,
) -> Result<Said, Error> {
    let locked = folder.lock()?;
    let mut said = Said {
        text: String::new(),
        complaints: Vec::new(),
        failed: false,
    };
    for name in names {
        match act(&locked, name) {
            Ok(change) => said.text += &format!("{name}: {}\n", report::words(change, name)),
            Err(error) => {
                said.complaints.push(format!("{name}: {error}"));
                said.failed = true;
            }
        }
    }
    Ok(said)
}

/// Whether the kernel would run the program for a script: a script whose first line names another does not start.
fn check_program(program: &Path) -> Result<(), Error> {
    let unusable = |why: &str| Error::Program {
        program: program.to_owned(),
        why: why.to_owned(),
    };
    let text = program.to_str().ok_or_else(|| unusable("its path is no text"))?;
    if !program.is_absolute() || text.len() > PROGRAM_MAX || text.contains(char::is_whitespace) {
        return Err(unusable(
            "a first line takes an absolute path of at most 120 bytes without spaces",
        ));
    }
    if program.file_name() != Some(SHIM.as_ref()) {
        return Err(unusable(
            "it is not called xenplug-script, by which a stand-in is known",
        ));
    }
    match fs::metadata(program) {
        Ok(facts) if facts.is_file() && facts.permissions().mode() & 0o111 == 0o111 => Ok(()),
        Ok(_) => Err(unusable("it is not a program that everybody may run")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unusable("it is not there")),
        Err(error) => Err(unusable(&error.to_string())),
    }
}
