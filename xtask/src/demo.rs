//! `cargo xtask demo`: builds only what the demo needs, and runs it.

use std::thread;

use anyhow::Result;

use crate::{
    components,
    progress::{self, Units},
    terminal,
    workspace::{Workspace, wasm_packages},
};

/// The binaries that the demo runs.
const BINARIES: [&str; 3] = ["xenplugd", "xenplug-demo", components::COMPONENTIZE];

/// The plugins that the demo attaches a disk and a vif with.
const PLUGINS: [&str; 2] = ["phy", "vif-bridge"];

/// CPU time of a build in an empty target directory, in minutes.
const COLD_BUILD: usize = 10;

/// Builds what is missing, and attaches a disk and a vif and detaches them.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    terminal::step("Demo: build the daemon and two plugins, then attach a disk and a vif to a guest, and detach them");
    let built = BINARIES
        .iter()
        .all(|name| workspace.target.join("release").join(name).exists());
    terminal::note(&if built {
        "seconds if nothing has changed since the last build".to_owned()
    } else {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let minutes = COLD_BUILD.div_ceil(cores);
        format!("about {minutes} min on {cores} idle cores ({COLD_BUILD} min of CPU time), most of it for wasmtime")
    });
    build_binaries(workspace, &BINARIES)?;
    components::build_plugins(workspace, &PLUGINS)?;
    workspace.run_binary("xenplug-demo", arguments)
}

/// Builds binaries with the features that the whole workspace has, so that a later build finds them compiled.
pub(crate) fn build_binaries(workspace: &Workspace, names: &[&str]) -> Result<()> {
    terminal::step(&format!("Build {}", names.join(", ")));
    let build = || {
        let mut cargo = workspace.cargo();
        cargo.args(["build", "--release", "--workspace"]);
        for package in wasm_packages().chain(["xenplug-properties"]) {
            cargo.args(["--exclude", package]);
        }
        for name in names {
            cargo.args(["--bin", name]);
        }
        cargo
    };
    let units = Units::of(build());
    progress::run(&mut build(), units)
}
