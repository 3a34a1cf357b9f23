//! Files that all cases share: copies of the originals, the shims, and the compiled plugins.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::fixture;
use crate::harness::{DebianRoot, build_directory};

/// Folder in which the originals find each other.
const FOLDER: &str = "/etc/xen/scripts";

/// Lines that Debian adds to `handle_iptable` to disable it (Debian bug 894013).
const DISABLED: &str = "  # This function is disabled in Debian packaging. See Debian bug #894013.\n  return 0\n";

/// Line of hotplugpath.sh with the folder that the originals search before `PATH`.
const FIRST_ON_PATH: &str = "\nbindir=\"/usr/bin\"\n";

/// Folders of the original scripts and of the shims, used by many cases at once.
///
/// The originals are Debian's, with `handle_iptable` as in Xen. They find each other in the copied folder, and search
/// the chosen `iptables` and the fake helpers of a case first.
#[derive(Debug)]
pub struct Lab {
    directory: TempDir,
    root: DebianRoot,
}

impl Lab {
    /// Creates the folders, with the scripts of the Debian root and Debian's default `iptables`, the one on nftables.
    pub fn new() -> Result<Self> {
        Self::with_iptables("xtables-nft-multi")
    }

    /// Creates the folders with another program as `iptables`.
    pub fn with_iptables(program: &str) -> Result<Self> {
        let root = DebianRoot::find()?;
        let directory = tempfile::Builder::new().prefix("xenplug-differential-").tempdir()?;
        let lab = Self { directory, root };
        for folder in [lab.originals(), lab.shims(), lab.tools(), lab.cache()] {
            fs::create_dir(folder)?;
        }
        let shim = build_directory()?.join("xenplug-script");
        ensure!(
            shim.exists(),
            "{} is missing: `cargo xtask build` builds it",
            shim.display()
        );
        for name in lab.root.script_names()? {
            let from = lab.root.script(&name);
            let text = fs::read_to_string(&from).with_context(|| from.display().to_string())?;
            let text = text.replace(FOLDER, &lab.originals().display().to_string());
            let mode = fs::metadata(&from)?.permissions();
            let text = match &*name {
                "vif-common.sh" => text.replace(DISABLED, ""),
                // The script uses syntax of bash.
                "vscsi" => text.replace("#!/bin/sh\n", "#!/bin/bash\n"),
                "hotplugpath.sh" => text.replace(FIRST_ON_PATH, &lab.first_on_path()),
                _ => text,
            };
            write(&lab.originals().join(&name), &text, mode.mode())?;
            if mode.mode() & 0o100 != 0 {
                write(&lab.shims().join(&name), &format!("#!{}\n", shim.display()), 0o755)?;
            }
        }
        symlink(Path::new("/usr/sbin").join(program), lab.tools().join("iptables"))?;
        lab.compile()?;
        Ok(lab)
    }

    /// Fills the cache, so that daemons that start at once do not all compile the plugins.
    fn compile(&self) -> Result<()> {
        let directory = self.directory.path();
        let config = fixture::config(self, directory, directory)?;
        fs::write(config.file(), &config.text)?;
        let done = Command::new(build_directory()?.join("xenplugd"))
            .arg("--check")
            .arg("--config")
            .arg(config.file())
            .output()
            .context("xenplugd --check")?;
        let output = String::from_utf8_lossy(&done.stdout);
        ensure!(done.status.success(), "xenplugd --check: {}\n{output}", done.status);
        Ok(())
    }

    /// Returns the root file system that the cases run in.
    pub fn root(&self) -> &DebianRoot {
        &self.root
    }

    /// Returns the folder of the originals.
    pub fn originals(&self) -> PathBuf {
        self.directory.path().join("originals")
    }

    /// Returns the folder of the shims.
    pub fn shims(&self) -> PathBuf {
        self.directory.path().join("shims")
    }

    /// Returns the daemons' cache of compiled components.
    pub(super) fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn first_on_path(&self) -> String {
        format!("\nbindir=\"{}:$XENPLUG_HELPERS\"\n", self.tools().display())
    }

    fn tools(&self) -> PathBuf {
        self.directory.path().join("tools")
    }

    /// Puts the chosen `iptables` first on a command's `PATH`.
    pub(super) fn equip(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.tools().display()));
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
