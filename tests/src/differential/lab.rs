//! What all cases share: copies of the originals, the stand-ins, and the compiled handlers.

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

/// Where the originals look for each other.
const FOLDER: &str = "/etc/xen/scripts";

/// What Debian has put into `handle_iptable`, so that it does nothing (Debian bug 894013).
const SWITCHED_OFF: &str = "  # This function is disabled in Debian packaging. See Debian bug #894013.\n  return 0\n";

/// Where they look for programs before they look where the caller does.
const FIRST_ON_PATH: &str = "\nbindir=\"/usr/bin\"\n";

/// Both folders of scripts, ready to be run by many cases at once.
///
/// The originals are Debian's, with `handle_iptable` as Xen has it; they look for each other in the copy, and find the
/// chosen `iptables` and the stand-ins of a case's helpers first.
#[derive(Debug)]
pub struct Lab {
    directory: TempDir,
    root: DebianRoot,
}

impl Lab {
    /// Makes the folders, with the scripts of the Debian root. `iptables` is the one that Debian prefers, on nftables.
    pub fn new() -> Result<Self> {
        Self::with_iptables("xtables-nft-multi")
    }

    /// The same, with the `iptables` that this program is.
    pub fn with_iptables(program: &str) -> Result<Self> {
        let root = DebianRoot::find()?;
        let directory = tempfile::Builder::new().prefix("xenplug-differential-").tempdir()?;
        let lab = Self { directory, root };
        for folder in [lab.originals(), lab.stand_ins(), lab.tools(), lab.cache()] {
            fs::create_dir(folder)?;
        }
        let stand_in = build_directory()?.join("xenplug-script");
        ensure!(
            stand_in.exists(),
            "{} is missing: `cargo xtask build` builds it",
            stand_in.display()
        );
        for name in lab.root.script_names()? {
            let from = lab.root.script(&name);
            let text = fs::read_to_string(&from).with_context(|| from.display().to_string())?;
            let text = text.replace(FOLDER, &lab.originals().display().to_string());
            let mode = fs::metadata(&from)?.permissions();
            let text = match &*name {
                "vif-common.sh" => text.replace(SWITCHED_OFF, ""),
                // It reads what only bash can.
                "vscsi" => text.replace("#!/bin/sh\n", "#!/bin/bash\n"),
                "hotplugpath.sh" => text.replace(FIRST_ON_PATH, &lab.first_on_path()),
                _ => text,
            };
            write(&lab.originals().join(&name), &text, mode.mode())?;
            if mode.mode() & 0o100 != 0 {
                write(
                    &lab.stand_ins().join(&name),
                    &format!("#!{}\n", stand_in.display()),
                    0o755,
                )?;
            }
        }
        symlink(Path::new("/usr/sbin").join(program), lab.tools().join("iptables"))?;
        lab.compile()?;
        Ok(lab)
    }

    /// Fills the cache, so that not every daemon of those that start at once compiles all handlers.
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
        let said = String::from_utf8_lossy(&done.stdout);
        ensure!(done.status.success(), "xenplugd --check: {}\n{said}", done.status);
        Ok(())
    }

    /// The root file system that the cases run in.
    pub fn root(&self) -> &DebianRoot {
        &self.root
    }

    /// The folder of the originals.
    pub fn originals(&self) -> PathBuf {
        self.directory.path().join("originals")
    }

    /// The folder of the stand-ins.
    pub fn stand_ins(&self) -> PathBuf {
        self.directory.path().join("stand-ins")
    }

    /// The daemons' cache of compiled components.
    pub(super) fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn first_on_path(&self) -> String {
        format!("\nbindir=\"{}:$XENPLUG_HELPERS\"\n", self.tools().display())
    }

    fn tools(&self) -> PathBuf {
        self.directory.path().join("tools")
    }

    /// Lets a command find the chosen `iptables` first.
    pub(super) fn equip(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.tools().display()));
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
