//! Task `cargo xtask demo`: builds only the binaries and plugins of the demo, and runs it.

use std::{process::Command, thread};

use anyhow::Result;

use crate::{
    components,
    progress::{self, Units},
    terminal,
    workspace::Workspace,
};

/// Daemon, daemon on a simulated host, and the tool that makes components.
const SHIPPED: [&str; 3] = ["xenplugd", "xenplugd-simulated", components::COMPONENTIZE];

/// Program of the demo.
const DEMO: &str = "xenplug-demo";

/// Plugins that connect the demo's disk and vif.
const PLUGINS: [&str; 2] = ["phy", "vif-bridge"];

/// CPU time of a build in an empty target directory, in minutes.
const COLD_BUILD: usize = 10;

/// Builds missing binaries and plugins, and runs the demo.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    terminal::step("Demo: build the daemon and two plugins, then attach a disk and a vif to a guest, and detach them");
    let built = SHIPPED
        .into_iter()
        .chain([DEMO])
        .all(|name| workspace.target.join("release").join(name).exists());
    terminal::note(&if built {
        "seconds if nothing has changed since the last build".to_owned()
    } else {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let minutes = COLD_BUILD.div_ceil(cores);
        format!("about {minutes} min on {cores} idle cores ({COLD_BUILD} min of CPU time), most of it for wasmtime")
    });
    build_shipped(workspace, &SHIPPED)?;
    build(|| workspace.build_test_programs(), &[DEMO])?;
    components::build_plugins(workspace, &PLUGINS)?;
    workspace.run_binary(DEMO, arguments)
}

/// Builds some of the shipped binaries.
pub(crate) fn build_shipped(workspace: &Workspace, names: &[&str]) -> Result<()> {
    build(|| workspace.build_shipped(), names)
}

/// Builds these binaries alone, with the features of a build of all, so that such a build reuses them.
fn build(all: impl Fn() -> Command, names: &[&str]) -> Result<()> {
    terminal::step(&format!("Build {}", names.join(", ")));
    let build = || {
        let mut cargo = all();
        for name in names {
            cargo.args(["--bin", name]);
        }
        cargo
    };
    progress::run(&mut build(), Units::of(build()))
}
