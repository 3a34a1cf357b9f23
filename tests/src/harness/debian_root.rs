//! Where the unpacked Debian packages and our own binaries are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Debian's Xen packages, unpacked into a directory: xenstored, the `xenstore-*` tools, the original scripts, `nft`.
#[derive(Clone, Debug)]
pub struct DebianRoot {
    root: PathBuf,
    libraries: PathBuf,
    stand_in: PathBuf,
}

impl DebianRoot {
    /// Finds it by `XENPLUG_RIG`, which `cargo xtask test` sets after unpacking.
    pub fn find() -> Result<Self> {
        let root = env::var_os("XENPLUG_RIG").map(PathBuf::from).context(
            "XENPLUG_RIG is not set: use `cargo xtask test`, which unpacks Debian's Xen packages and sets it",
        )?;
        ensure!(
            rustix::process::geteuid().is_root(),
            "the rig needs root, for namespaces and loop devices"
        );
        let libraries = fs::read_dir(root.join("usr/lib"))
            .with_context(|| format!("{} is not an unpacked rig", root.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
            .with_context(|| format!("no libraries in {}", root.display()))?;
        let stand_in = build_directory()?.join("libxenstored_stand_in.so");
        if !stand_in.exists() {
            bail!(
                "{} is missing: `cargo build --release -p xenstored-stand-in` builds it",
                stand_in.display()
            );
        }
        Ok(Self {
            root,
            libraries,
            stand_in,
        })
    }

    /// The library to preload into xenstored.
    pub fn stand_in(&self) -> &Path {
        &self.stand_in
    }

    /// xenstored itself, whatever the version of Xen in its path.
    pub fn xenstored(&self) -> Result<PathBuf> {
        fs::read_dir(self.root.join("usr/lib"))?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin/xenstored")))
            .find(|path| path.exists())
            .with_context(|| format!("no xenstored in {}", self.root.display()))
    }

    /// An original hotplug script, such as `block`.
    pub fn script(&self, name: &str) -> PathBuf {
        self.scripts().join(name)
    }

    /// The folder of the original scripts.
    pub fn scripts(&self) -> PathBuf {
        self.root.join("etc/xen/scripts")
    }

    /// The folder of those of the newest Xen that Debian has.
    pub fn newer_scripts(&self) -> Result<PathBuf> {
        let folder = self.root.with_file_name("rig-newer").join("etc/xen/scripts");
        ensure!(
            folder.is_dir(),
            "{} is missing: `cargo xtask setup` fetches it",
            folder.display()
        );
        Ok(folder)
    }

    /// The names of all files in the folder of the original scripts, sorted.
    pub fn script_names(&self) -> Result<Vec<String>> {
        let folder = self.scripts();
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Where a file of the rig is.
    pub fn program(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Where the rig's libraries are.
    pub fn libraries(&self) -> &Path {
        &self.libraries
    }

    /// A program of the rig, with its libraries, such as `usr/bin/xenstore-ls`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join(program));
        self.equip(&mut command);
        command
    }

    /// Lets a command find the rig's programs and libraries.
    pub fn equip(&self, command: &mut Command) {
        let mut path = env::var_os("PATH").unwrap_or_default();
        for directory in ["usr/bin", "usr/sbin"] {
            path.push(":");
            path.push(self.root.join(directory));
        }
        command.env("PATH", path).env("LD_LIBRARY_PATH", &self.libraries);
    }
}

/// The directory that this program was built into, such as `target/release`: the others are beside it.
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
