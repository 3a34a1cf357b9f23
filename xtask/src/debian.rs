//! Debian packages, fetched by apt and unpacked into a directory of the project. Nothing on the host changes, packages
//! of the host do not count as installed, and no maintainer script runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{terminal, workspace::Workspace};

/// File in an unpacked root that names its packages.
const STAMP: &str = ".packages";

/// Directories that are links into `/usr` on Debian. No package of Debian 12 contains the links.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Interval of the notes on the progress of a download.
const PROGRESS: Duration = Duration::from_secs(10);

/// Apt with package lists, sources and downloads in a folder of the workspace.
pub(crate) struct Apt {
    folder: PathBuf,
    /// Release of Debian, of which nothing counts as installed. `None` for the host's own release and packages: then
    /// dependencies that the host has are not fetched.
    release: Option<&'static str>,
}

impl Apt {
    /// Selects the packages of a release, from the archive that the host uses. Fails on a host that is no Debian.
    pub(crate) fn of_release(workspace: &Workspace, release: &'static str) -> Result<Self> {
        Self::of(workspace, Some(release))
    }

    /// Selects packages that run in the host's own root.
    pub(crate) fn of_host(workspace: &Workspace) -> Result<Self> {
        Self::of(workspace, None)
    }

    fn of(workspace: &Workspace, release: Option<&'static str>) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
            if !on_path(program) {
                bail!("the host has no {program}: only Debian and its derivatives can fetch these packages");
            }
        }
        let apt = Self {
            folder: workspace.target.join(format!("apt-{}", release.unwrap_or("machine"))),
            release,
        };
        for folder in ["lists/partial", "archives/partial", "sources"] {
            fs::create_dir_all(apt.folder.join(folder))?;
        }
        fs::write(apt.folder.join("nothing-installed"), "")?;
        Ok(apt)
    }

    /// Unpacks packages and their dependencies into `root`, except those whose names begin as `needless` says. A
    /// root that was unpacked from the same lists stays as it is. `finish` does the work of maintainer scripts.
    pub(crate) fn unpack(
        &self,
        packages: &[&str],
        needless: &[&str],
        root: &Path,
        finish: fn(&Path) -> Result<()>,
    ) -> Result<()> {
        let head = format!(
            "# {} of {}, without {}\n",
            packages.join(" "),
            self.source(),
            needless.join(" ")
        );
        if fs::read_to_string(root.join(STAMP)).is_ok_and(|stamp| stamp.starts_with(&head)) {
            return Ok(());
        }
        let archives = self.download(packages, needless)?;
        let partial = root.with_extension("partial");
        remove(&partial)?;
        for name in MERGED {
            fs::create_dir_all(partial.join("usr").join(name))?;
            std::os::unix::fs::symlink(format!("usr/{name}"), partial.join(name))?;
        }
        let mut versions = Vec::new();
        for archive in &archives {
            extract(archive, &partial).with_context(|| format!("unpack {}", archive.display()))?;
            versions.push(version(archive)?);
        }
        finish(&partial)?;
        versions.sort();
        fs::write(partial.join(STAMP), format!("{head}{}", versions.concat()))?;
        remove(root)?;
        fs::rename(&partial, root).with_context(|| format!("create {}", root.display()))?;
        remove(&self.archives())?;
        terminal::note(&format!(
            "{} packages of {} unpacked into {}",
            versions.len(),
            self.source(),
            root.display()
        ));
        Ok(())
    }

    /// Returns the package with the highest version between `prefix` and `suffix`, such as `xen-utils-4.17`.
    pub(crate) fn newest(&self, prefix: &str, suffix: &str) -> Result<String> {
        let number = |name: &str| -> Option<Vec<u32>> {
            let middle = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            middle.split(['.', '-']).map(|part| part.parse().ok()).collect()
        };
        self.fetch_lists()?;
        let names = terminal::read(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        let newest = names.lines().filter_map(|name| Some((number(name)?, name))).max();
        Ok(newest
            .with_context(|| format!("{} has no package {prefix}*{suffix}", self.source()))?
            .1
            .to_owned())
    }

    /// Returns the dependency of a package whose name starts with `prefix`.
    pub(crate) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        self.fetch_lists()?;
        let depends = terminal::read(self.apt("apt-cache").args(["depends", package]))?;
        let mut names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let name = names.find(|name| name.starts_with(prefix));
        Ok(name
            .with_context(|| format!("{package} depends on no {prefix}*"))?
            .to_owned())
    }

    /// Downloads the archives. Outdated package lists name archives that no longer exist: after a failure new lists are
    /// fetched, once.
    fn download(&self, packages: &[&str], needless: &[&str]) -> Result<Vec<PathBuf>> {
        self.fetch_lists()?;
        self.try_download(packages, needless).or_else(|error| {
            terminal::note(&format!(
                "{error:#}: the package lists may be out of date, fetch new ones"
            ));
            self.update()?;
            self.try_download(packages, needless)
        })
    }

    fn try_download(&self, packages: &[&str], needless: &[&str]) -> Result<Vec<PathBuf>> {
        // Archives of an earlier attempt may be of older versions.
        remove(&self.archives())?;
        fs::create_dir_all(self.archives().join("partial"))?;
        let wanted = terminal::read(self.install(packages).arg("--print-uris"))?;
        // 'URI' NAME_VERSION_ARCHITECTURE.deb SIZE HASH
        let files = wanted.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (file, size) = (words.next()?, words.next()?.parse::<u64>().ok()?);
            let (name, _) = file.split_once('_')?;
            let is_needless = needless.iter().any(|beginning| name.starts_with(beginning));
            (!is_needless).then(|| (name.to_owned(), size))
        });
        let (names, sizes): (Vec<_>, Vec<_>) = files.unzip();
        let size = sizes.iter().sum::<u64>();
        terminal::note(&format!(
            "fetch {} packages of {}, {}; nothing is installed on this host",
            names.len(),
            self.source(),
            megabytes(size)
        ));
        let mut download = self.apt("apt-get");
        // `download` takes no dependencies along; the list has them already.
        download
            .args(["-qq", "download"])
            .args(&names)
            .current_dir(self.archives())
            .stdout(Stdio::null());
        let mut download = download.spawn().context("apt-get")?;
        let mut reported = Instant::now();
        let status = loop {
            match download.try_wait()? {
                Some(status) => break status,
                None if reported.elapsed() > PROGRESS => {
                    reported = Instant::now();
                    let done = folder_size(&self.archives()) + folder_size(&self.archives().join("partial"));
                    terminal::note(&format!("{} of {}", megabytes(done), megabytes(size)));
                }
                None => thread::sleep(Duration::from_millis(50)),
            }
        };
        ensure!(status.success(), "apt-get download ended with {status}");
        let entries = fs::read_dir(self.archives())?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut archives: Vec<_> = entries
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        archives.sort();
        ensure!(
            archives.len() == names.len(),
            "apt-get downloaded {} of {} packages",
            archives.len(),
            names.len()
        );
        Ok(archives)
    }

    /// Returns `apt-get install`. Callers add an option that prevents the installation.
    fn install(&self, packages: &[&str]) -> Command {
        let mut apt = self.apt("apt-get");
        apt.args(["-qq", "--yes", "--no-install-recommends", "install"])
            .args(packages);
        apt
    }

    fn fetch_lists(&self) -> Result<()> {
        if holds_lists(&self.folder.join("lists")) {
            return Ok(());
        }
        self.update()
    }

    fn update(&self) -> Result<()> {
        terminal::note(&format!("fetch the package lists of {}", self.source()));
        if let Some(release) = self.release {
            let source = format!(
                "Types: deb\nURIs: {}\nSuites: {release}\nComponents: main\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
                origin()?
            );
            fs::write(self.folder.join("sources/debian.sources"), source)?;
        }
        terminal::run(self.apt("apt-get").args(["-qq", "update"]))
    }

    /// Returns the origin of the packages, for messages.
    fn source(&self) -> String {
        match self.release {
            Some(release) => format!("Debian {release}"),
            None => "the host's release".to_owned(),
        }
    }

    fn archives(&self) -> PathBuf {
        self.folder.join("archives")
    }

    /// Returns a program of apt with options that confine it to our folder. The option for the user is needed because
    /// apt under root otherwise changes to a user who cannot write there.
    fn apt(&self, program: &str) -> Command {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let mut options = vec![
            format!("Dir::Cache={}", path("")),
            format!("Dir::State::Lists={}", path("lists")),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Debug::NoLocking=true".to_owned(),
        ];
        if self.release.is_some() {
            options.extend([
                format!("Dir::State::Status={}", path("nothing-installed")),
                format!("Dir::Etc::SourceParts={}", path("sources")),
                "Dir::Etc::SourceList=/dev/null".to_owned(),
                "Dir::Etc::Preferences=/dev/null".to_owned(),
                "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            ]);
        }
        let mut apt = Command::new(program);
        for option in options {
            apt.args(["--option", &option]);
        }
        apt
    }
}

/// Returns the address of the Debian archive that the host uses.
fn origin() -> Result<String> {
    let known = terminal::read(Command::new("apt-get").args([
        "indextargets",
        "--no-release-info",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Component: main",
    ]))?;
    let mut uris = known.lines().map(|uri| uri.trim_end_matches('/'));
    uris.find(|uri| uri.ends_with("/debian"))
        .map(str::to_owned)
        .context("apt knows no archive of Debian's")
}

/// Extracts an archive. tar keeps links to directories, so that `/lib` stays in `/usr`.
fn extract(archive: &Path, root: &Path) -> Result<()> {
    let mut unpack = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("dpkg-deb")?;
    let files = unpack.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--keep-directory-symlink", "--directory"])
        .arg(root)
        .stdin(files);
    terminal::run(&mut tar)?;
    ensure!(unpack.wait()?.success(), "dpkg-deb failed");
    Ok(())
}

/// Returns the line `package=version` of an archive.
fn version(archive: &Path) -> Result<String> {
    let mut show = Command::new("dpkg-deb");
    show.args(["--show", "--showformat", "${Package}=${Version}\n"]);
    terminal::read(show.arg(archive))
}

/// Returns true if `PATH` has a program of this name.
fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn holds_lists(folder: &Path) -> bool {
    let entries = fs::read_dir(folder);
    entries.is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

fn folder_size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
