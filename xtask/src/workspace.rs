//! Paths of the workspace, and its builds by cargo. Everything native is built in one profile, so that wasmtime is
//! compiled once.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    roots::{self, Release},
    terminal,
};

/// Packages of the plugins that are shipped.
pub(crate) const SHIPPED_PLUGINS: &[&str] = &[
    "phy",
    "qdisk",
    "block-dummy",
    "block-iscsi",
    "block-nbd",
    "block-tap",
    "vif-bridge",
    "vif-nat",
    "vif-openvswitch",
    "vif-route",
    "vscsi",
];

/// Packages with programs that only tests, the demo and benchmarks run.
const TEST_PROGRAMS: &[&str] = &["xenplug-bench", "xenplug-tests", "xenstored-preload"];

/// Libraries that only tests use.
const TEST_LIBRARIES: &[&str] = &["xenplug-properties", "xenplug-store-server"];

/// Returns the packages that become components. A native build of them serves only their unit tests.
pub(crate) fn wasm_packages() -> impl Iterator<Item = &'static str> {
    SHIPPED_PLUGINS.iter().copied().chain(["xenplug-guests"])
}

/// Checkout that xtask was built from.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask's folder has no parent")?
            .to_path_buf();
        // cargo takes a relative path from its working directory.
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => std::path::absolute(folder)?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// Returns the folder of the finished components.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.target.join("plugins")
    }

    /// Returns a command of the cargo that runs xtask.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        cargo.current_dir(&self.root);
        cargo
    }

    pub(crate) fn build_binaries(&self) -> Result<()> {
        terminal::step("Build the release binaries");
        terminal::run(&mut self.build_shipped())?;
        terminal::run(&mut self.build_test_programs())
    }

    /// Returns a build of all shipped binaries. It leaves out the packages for tests: cargo unites the features of all
    /// packages of a build, and shipped binaries must not have those of tests. It contains all others, so that every
    /// build of some of these binaries has the same features, and wasmtime is compiled once.
    pub(crate) fn build_shipped(&self) -> Command {
        let mut cargo = self.cargo();
        cargo.args(["build", "--release", "--workspace"]);
        for package in wasm_packages()
            .chain(TEST_PROGRAMS.iter().copied())
            .chain(TEST_LIBRARIES.iter().copied())
        {
            cargo.args(["--exclude", package]);
        }
        cargo
    }

    /// Returns a build of the programs that only tests, the demo and benchmarks run.
    pub(crate) fn build_test_programs(&self) -> Command {
        let mut cargo = self.cargo();
        cargo.args(["build", "--release"]);
        for package in TEST_PROGRAMS {
            cargo.args(["--package", package]);
        }
        cargo
    }

    /// Runs `cargo test` with these arguments, in the root of a release.
    pub(crate) fn test(&self, release: Release, arguments: &[String]) -> Result<()> {
        terminal::step("Run the tests");
        let mut cargo = self.test_command();
        if let Some(enter) = self.enter(release)? {
            let runner = serde_json::to_string(&enter)?;
            cargo
                .arg("--config")
                .arg(format!("target.'cfg(all())'.runner={runner}"));
        }
        terminal::run(self.with_parts(cargo.arg("--no-fail-fast").args(arguments)))
    }

    /// Returns `cargo test` for all packages except the guests, which have no tests: a native build would only link
    /// them.
    pub(crate) fn test_command(&self) -> Command {
        let mut cargo = self.cargo();
        cargo.args(["test", "--release", "--workspace", "--exclude", "xenplug-guests"]);
        cargo
    }

    /// Runs one of the binaries that `build_binaries` built, in the host's own root.
    pub(crate) fn run_binary(&self, name: &str, arguments: &[String]) -> Result<()> {
        let mut binary = Command::new(self.target.join("release").join(name));
        terminal::run(self.with_parts(binary.args(arguments)))
    }

    /// Runs one of the binaries in the Debian root, or in the host's own where that root could not be fetched.
    pub(crate) fn run_binary_in_root(&self, name: &str, arguments: &[String]) -> Result<()> {
        let mut binary = self.command_in(roots::PRIMARY, &self.target.join("release").join(name))?;
        terminal::run(self.with_parts(binary.args(arguments)))
    }

    /// Returns a command in the root of a release, or in the host's own where that root could not be fetched.
    pub(crate) fn command_in(&self, release: Release, program: &Path) -> Result<Command> {
        Ok(match self.enter(release)? {
            Some(enter) => {
                let mut command = Command::new(&enter[0]);
                command.args(&enter[1..]).arg(program);
                command
            }
            None => Command::new(program),
        })
    }

    /// Returns the command line to put before a program so that it runs in the root of a release; `None` where that
    /// root could not be fetched.
    fn enter(&self, release: Release) -> Result<Option<Vec<String>>> {
        let root = roots::folder(self, release);
        if !root.is_dir() {
            return Ok(None);
        }
        let (mount_point, tmp) = (self.target.join("root"), self.target.join("root-tmp"));
        for folder in [&mount_point, &tmp] {
            std::fs::create_dir_all(folder)?;
        }
        let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
        let toolchain = [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")]
            .map(|(variable, usual)| env::var_os(variable).map_or_else(|| home.join(usual), PathBuf::from));
        let mut words = vec![self.target.join("release/xenplug-enter").display().to_string()];
        let mut add = |option: &str, path: &Path| words.extend([option.to_owned(), path.display().to_string()]);
        add("--root", &root);
        add("--mount-point", &mount_point);
        add("--tmp", &tmp);
        for folder in [&self.root, &self.target].into_iter().chain(&toolchain) {
            add("--bind", folder);
        }
        words.push("--".to_owned());
        Ok(Some(words))
    }

    /// Sets the variables for the folder of the components, and for the parts of real Xen if they could be fetched.
    pub(crate) fn with_parts<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("XENPLUG_PLUGINS", self.plugins());
        let xen = roots::xen_folder(self);
        if xen.is_dir() {
            command.env("XENPLUG_XEN", xen);
        }
        command
    }
}
