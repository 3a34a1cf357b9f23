//! Rust toolchain that can compile for `wasm32-unknown-unknown`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{debian::Apt, terminal, workspace::Workspace};

const TARGET: &str = "wasm32-unknown-unknown";

/// Time limit of a download: long enough for a slow line (the target is some 20 MB), short enough to notice a network
/// that does not answer.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(180);

/// Compiler of the components. `XENPLUG_WASM_TOOLCHAIN=rustup` or `=debian` selects it; by default it is the first that
/// works.
pub(crate) enum Toolchain {
    /// The toolchain that runs xtask, which has the target: rustup's, or a distribution's.
    Own,
    /// Debian's `rustc-web` and `cargo-web`, unpacked into this folder. Their standard library comes as source.
    Debian(PathBuf),
}

impl Toolchain {
    /// Finds a toolchain, or fetches one.
    pub(crate) fn set_up(workspace: &Workspace) -> Result<Self> {
        let wanted = env::var("XENPLUG_WASM_TOOLCHAIN").ok();
        match wanted.as_deref() {
            Some("rustup") => Self::own(workspace),
            Some("debian") => Self::debian(workspace),
            Some(other) => bail!("XENPLUG_WASM_TOOLCHAIN is `{other}`, and has to be `rustup` or `debian`"),
            None => Self::own(workspace).or_else(|own| {
                terminal::note(&format!("{own:#}"));
                Self::debian(workspace).map_err(|debian| {
                    anyhow::anyhow!(
                        "no way to compile for {TARGET}.\n  rustup: {own:#}\n  Debian: {debian:#}\n\
                         Give this Rust the target (`rustup target add {TARGET}`) and try again."
                    )
                })
            }),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Own => "this Rust toolchain",
            Self::Debian(_) => "Debian's rustc-web",
        }
    }

    /// Returns its target directory. Debian's compiler is another version, and has its own.
    pub(crate) fn target(&self, workspace: &Workspace) -> PathBuf {
        match self {
            Self::Own => workspace.target.clone(),
            Self::Debian(_) => workspace.target.join("wasm-debian"),
        }
    }

    /// Returns a cargo command that compiles for the target.
    pub(crate) fn cargo(&self, workspace: &Workspace) -> Command {
        let mut cargo = match self {
            Self::Own => workspace.cargo(),
            Self::Debian(folder) => debian_cargo(workspace, folder),
        };
        cargo.env("CARGO_TARGET_DIR", self.target(workspace));
        cargo
    }

    fn own(workspace: &Workspace) -> Result<Self> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let folder = terminal::read(Command::new(rustc).current_dir(&workspace.root).args([
            "--print",
            "target-libdir",
            "--target",
            TARGET,
        ]))?;
        if holds_core(Path::new(folder.trim())) {
            return Ok(Self::Own);
        }
        terminal::step(&format!("Fetch the Rust target {TARGET} by rustup"));
        let rustup = Command::new("rustup")
            .current_dir(&workspace.root)
            .args(["target", "add", TARGET])
            .spawn();
        within(DOWNLOAD_LIMIT, rustup.context("the host has no rustup")?)?;
        if !holds_core(Path::new(folder.trim())) {
            bail!("rustup has another toolchain than the one in use");
        }
        Ok(Self::Own)
    }

    fn debian(workspace: &Workspace) -> Result<Self> {
        terminal::step(&format!("Fetch a compiler for {TARGET} from Debian"));
        let folder = workspace.target.join("rust-web");
        Apt::of_host(workspace)?.unpack(&["rustc-web", "cargo-web", "rust-web-src", "lld"], &[], &folder, |_| {
            Ok(())
        })?;
        Ok(Self::Debian(folder))
    }
}

/// Returns Debian's cargo. Debian ships no compiled standard library for the target, so cargo compiles it by an
/// unstable feature.
fn debian_cargo(workspace: &Workspace, folder: &Path) -> Command {
    let mut cargo = Command::new(folder.join("usr/bin/cargo"));
    cargo
        .current_dir(&workspace.root)
        .env("RUSTC", folder.join("usr/bin/rustc"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("LD_LIBRARY_PATH", library_path(folder))
        .env(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
            folder.join("usr/bin/wasm-ld"),
        )
        .args(["-Zbuild-std=std,panic_abort"]);
    // rustup sets these for the toolchain that runs xtask.
    for name in [
        "RUSTUP_TOOLCHAIN",
        "CARGO",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        cargo.env_remove(name);
    }
    cargo
}

/// Returns the library folders of the unpacked packages: `usr/lib/<triple>`, and LLVM's own.
fn library_path(folder: &Path) -> std::ffi::OsString {
    let mut folders = Vec::new();
    for parent in [folder.join("usr/lib"), folder.join("lib")] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with("-linux-gnu") {
                folders.push(entry.path());
            }
        }
    }
    env::join_paths(folders).unwrap_or_default()
}

/// Returns true if a toolchain's folder for a target has the target's standard library.
fn holds_core(folder: &Path) -> bool {
    let entries = fs::read_dir(folder);
    entries.is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

/// Waits for a command, and kills it after the time limit.
fn within(limit: Duration, mut child: Child) -> Result<()> {
    let start = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("rustup ended with {status}"),
            None if start.elapsed() > limit => {
                child.kill()?;
                child.wait()?;
                bail!("rustup did not finish in {} s", limit.as_secs());
            }
            None => thread::sleep(Duration::from_millis(100)),
        }
    }
}
