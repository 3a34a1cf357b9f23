//! Debian root file system that a test runs in, and the directory of our own binaries.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Root file system of this process, made of unpacked Debian packages: xenstored, the `xenstore-*` tools, the original
/// scripts, and all programs that these and the tests run.
#[derive(Clone, Debug)]
pub struct DebianRoot {
    version: u32,
    preload: PathBuf,
}

impl DebianRoot {
    /// Finds the root by `XENPLUG_DEBIAN`, which `xenplug-enter` sets.
    pub fn find() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the harness needs root, for namespaces and loop devices"
        );
        env::var_os("XENPLUG_DEBIAN").context(
            "XENPLUG_DEBIAN is not set: use `cargo xtask test`, which runs the tests in a root of Debian packages",
        )?;
        let version = fs::read_to_string("/etc/debian_version").context("/etc/debian_version")?;
        let number = version.split(['.', '\n']).next().unwrap_or_default();
        let preload = build_directory()?.join("libxenstored_preload.so");
        if !preload.exists() {
            bail!(
                "{} is missing: `cargo build --release -p xenstored-preload` builds it",
                preload.display()
            );
        }
        Ok(Self {
            version: number.parse().with_context(|| format!("Debian {version}"))?,
            preload,
        })
    }

    /// Returns the number of the release: 12 has Xen 4.17, 13 has Xen 4.20.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the library to preload into xenstored.
    pub fn preload(&self) -> &Path {
        &self.preload
    }

    /// Returns the path of xenstored, which contains the version of Xen.
    pub fn xenstored(&self) -> Result<PathBuf> {
        fs::read_dir("/usr/lib")?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin/xenstored")))
            .find(|path| path.exists())
            .context("no xenstored in /usr/lib/xen-*/bin")
    }

    /// Returns the path of an original hotplug script, such as `block`.
    pub fn script(&self, name: &str) -> PathBuf {
        self.scripts().join(name)
    }

    /// Returns the folder of the original scripts.
    pub fn scripts(&self) -> PathBuf {
        "/etc/xen/scripts".into()
    }

    /// Returns the folder of the original scripts in the root of a release, which may be another one.
    pub fn scripts_of(&self, version: u32) -> Result<PathBuf> {
        let own = env::var_os("XENPLUG_DEBIAN").map(PathBuf::from).unwrap_or_default();
        let folder = own.with_file_name(format!("debian-{version}")).join("etc/xen/scripts");
        ensure!(
            folder.is_dir(),
            "{} is missing: `cargo xtask setup` fetches it",
            folder.display()
        );
        Ok(folder)
    }

    /// Returns the names of all files in the folder of the original scripts, sorted.
    pub fn script_names(&self) -> Result<Vec<String>> {
        let folder = self.scripts();
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Returns a command that runs a program of the root, such as `usr/bin/xenstore-ls`.
    pub fn command(&self, program: &str) -> Command {
        Command::new(Path::new("/").join(program))
    }
}

/// Returns the directory that this program was built into, such as `target/release`, with the other programs.
pub fn build_directory() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let directory = program.parent().context("a program is in a directory")?;
    Ok(if directory.ends_with("deps") {
        directory.parent().unwrap_or(directory)
    } else {
        directory
    }
    .to_owned())
}
