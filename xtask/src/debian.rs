//! Debian packages, unpacked into a folder of their own: nothing on the machine changes, and root is not needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{terminal, workspace::Workspace};

/// Apt as it is run for one workspace: its downloads, and package lists where the machine has none, stay in there.
pub(crate) struct Apt {
    folder: PathBuf,
    /// Another release of Debian's than the machine's.
    release: Option<&'static str>,
    /// Whether the machine's own packages count: what is there needs no download, and what it breaks cannot be had.
    machine_counts: bool,
}

impl Apt {
    /// Fails, saying so, on a machine that is no Debian.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg"] {
            if !on_path(program) {
                bail!("this machine has no {program}: only Debian and its derivatives can fetch these packages");
            }
        }
        Ok(Self {
            folder: workspace.target.join("apt"),
            release: None,
            machine_counts: true,
        })
    }

    /// The same for another release, from where the machine has its own. Its packages come alone, without those that
    /// they depend on: they are read, and not run.
    pub(crate) fn find_other(workspace: &Workspace, release: &'static str) -> Result<Self> {
        let own = Self::find(workspace)?;
        let origin = own.origin()?;
        let other = Self {
            folder: workspace.target.join(format!("apt-{release}")),
            release: Some(release),
            machine_counts: true,
        };
        fs::create_dir_all(other.sources())?;
        fs::write(
            other.sources().join("other.sources"),
            format!(
                "Types: deb\nURIs: {origin}\nSuites: {release}\nComponents: main\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            ),
        )?;
        Ok(other)
    }

    /// The same, as if nothing were installed here: the machine's packages neither replace nor break any.
    pub(crate) fn on_bare_machine(self) -> Result<Self> {
        fs::create_dir_all(&self.folder)?;
        fs::write(self.nothing_installed(), "")?;
        Ok(Self {
            machine_counts: false,
            ..self
        })
    }

    /// Downloads packages, with those they depend on that the machine lacks, and unpacks them into `folder`, but for
    /// the dependencies that are needless there. Does nothing if the same packages were unpacked there before.
    pub(crate) fn unpack(&self, packages: &[&str], needless: fn(&str) -> bool, folder: &Path) -> Result<()> {
        let stamp = folder.join(".packages");
        let wanted = packages.join("\n");
        if fs::read_to_string(&stamp).is_ok_and(|unpacked| unpacked == wanted) {
            return Ok(());
        }
        let archives = self.folder.join("archives");
        terminal::note("apt downloads these packages; nothing is installed on this machine");
        self.download(packages)?;

        let partial = folder.with_extension("partial");
        remove(&partial)?;
        fs::create_dir_all(&partial)?;
        let mut count = 0;
        for entry in fs::read_dir(&archives)? {
            let archive = entry?.path();
            // NAME_VERSION_ARCHITECTURE.deb
            let file = archive.file_name().unwrap_or_default().to_string_lossy();
            let Some((name, _)) = file.split_once('_').filter(|_| file.ends_with(".deb")) else {
                continue;
            };
            if !needless(name) {
                terminal::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&partial))?;
                count += 1;
            }
        }
        fs::write(partial.join(".packages"), wanted)?;
        remove(folder)?;
        fs::rename(&partial, folder).with_context(|| format!("create {}", folder.display()))?;
        remove(&archives)?;
        terminal::note(&format!("{count} packages unpacked into {}", folder.display()));
        Ok(())
    }

    /// The names of the packages that begin so, sorted.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let machine_lists = self.find_lists()?;
        let mut apt = Command::new("apt-cache");
        let names = terminal::read(apt.args(self.options(machine_lists)).args(["pkgnames", prefix]))?;
        let mut names: Vec<_> = names.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// What a package depends on that begins so.
    pub(crate) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let machine_lists = self.find_lists()?;
        let mut apt = Command::new("apt-cache");
        let depends = terminal::read(apt.args(self.options(machine_lists)).args(["depends", package]))?;
        let mut names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let name = names.find(|name| name.starts_with(prefix));
        Ok(name
            .with_context(|| format!("{package} depends on no {prefix}*"))?
            .to_owned())
    }

    fn download(&self, packages: &[&str]) -> Result<()> {
        let machine_lists = self.find_lists()?;
        self.clear_archives()?;
        terminal::run(&mut self.install(packages, machine_lists)).or_else(|_| {
            terminal::note("the package lists may be out of date: fetch new ones");
            self.update()?;
            // What has come already may be of an older version than the rest will be.
            self.clear_archives()?;
            terminal::run(&mut self.install(packages, false))
        })
    }

    fn clear_archives(&self) -> Result<()> {
        let archives = self.folder.join("archives");
        remove(&archives)?;
        Ok(fs::create_dir_all(archives.join("partial"))?)
    }

    /// Where the machine has Debian's packages from.
    fn origin(&self) -> Result<String> {
        let machine_lists = self.find_lists()?;
        let mut apt = Command::new("apt-get");
        let known = terminal::read(apt.args(self.options(machine_lists)).args([
            "indextargets",
            "--format",
            "$(CODENAME) $(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            "Component: main",
        ]))?;
        // Updates are of another codename: `bookworm-security`.
        let mut origins = known.lines().filter_map(|line| line.split_once(' '));
        let origin = origins.find(|(codename, _)| !codename.contains('-'));
        Ok(origin.context("apt has no packages of Debian's own")?.1.to_owned())
    }

    /// The folder of our own list of sources.
    fn sources(&self) -> PathBuf {
        self.folder.join("sources")
    }

    /// A file that says what is installed, and is empty.
    fn nothing_installed(&self) -> PathBuf {
        self.folder.join("nothing-installed")
    }

    /// Whether to use the machine's package lists; if not, ours are there.
    fn find_lists(&self) -> Result<bool> {
        let machine_lists = self.release.is_none() && holds_lists(Path::new("/var/lib/apt/lists"));
        if !machine_lists && !holds_lists(&self.folder.join("lists")) {
            self.update()?;
        }
        Ok(machine_lists)
    }

    /// Only downloads, in spite of its name; named packages also if they are installed.
    fn install(&self, packages: &[&str], machine_lists: bool) -> Command {
        let mut apt = Command::new("apt-get");
        apt.args(self.options(machine_lists)).args([
            "--option",
            "Debug::NoLocking=true",
            "--option",
            "Dpkg::Use-Pty=false",
        ]);
        if self.release.is_some() {
            apt.current_dir(self.folder.join("archives"))
                .arg("download")
                .args(packages);
            return apt;
        }
        apt.args([
            "--download-only",
            "--yes",
            "--no-install-recommends",
            "--reinstall",
            "install",
        ])
        .args(packages);
        apt
    }

    fn update(&self) -> Result<()> {
        terminal::note("fetch the package lists");
        fs::create_dir_all(self.folder.join("lists/partial"))?;
        fs::create_dir_all(self.folder.join("archives/partial"))?;
        terminal::run(Command::new("apt-get").args(self.options(false)).args([
            "--option",
            "Debug::NoLocking=true",
            "-q",
            "update",
        ]))
    }

    /// Options that keep apt within our folder. As root it would change to a user who cannot write there.
    fn options(&self, machine_lists: bool) -> Vec<String> {
        let mut options = vec![
            format!("--option=Dir::Cache={}", self.folder.display()),
            "--option=APT::Sandbox::User=root".to_owned(),
        ];
        if !machine_lists {
            options.push(format!(
                "--option=Dir::State::Lists={}",
                self.folder.join("lists").display()
            ));
        }
        if !self.machine_counts {
            options.push(format!(
                "--option=Dir::State::Status={}",
                self.nothing_installed().display()
            ));
        }
        if self.release.is_some() {
            options.extend([
                "--option=Dir::Etc::SourceList=/dev/null".to_owned(),
                format!("--option=Dir::Etc::SourceParts={}", self.sources().display()),
                "--option=Acquire::Languages=none".to_owned(),
            ]);
        }
        options
    }
}

/// Whether a program is to be found by its name.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps administrators' programs out of the path of others.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder: PathBuf| folder.join(program))
        .any(|file| file.is_file())
}

fn holds_lists(folder: &Path) -> bool {
    let entries = fs::read_dir(folder);
    entries.is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
