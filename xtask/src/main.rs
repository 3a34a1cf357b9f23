//! `cargo xtask`: set-up, build, test, trials, demo and benchmarks, each from a bare clone.

mod components;
mod debian;
mod fuzz;
mod rig;
mod setup;
mod terminal;
mod trials;
mod wasm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use workspace::Workspace;

/// Builds, tests and shows Xenplug, with all the set-up that it needs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetches what building and testing need, and is not there yet: the wasm target, Debian's Xen tools.
    Setup,
    /// Builds the handlers' components alone, into `target/plugins`.
    Components,
    /// Builds all release binaries and components.
    Build,
    /// Runs every test. Arguments go to `cargo test`.
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs the trials of docs/reliability.md, and shows them in a table: trial, tests, cases, passed, time.
    Trials(trials::Arguments),
    /// Lets libFuzzer look for what properties do not hold of: frames, paths, directories, records, and more.
    Fuzz {
        /// Which; all, if none is named.
        targets: Vec<String>,
        /// How long each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Keep what was found worth it in `fuzz/corpus`.
        #[arg(long)]
        keep: bool,
    },
    /// Plugs a disk and a network card, and takes them out again.
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Boots real Xen under emulation and runs scenarios on it: `--list` names them.
    Xen {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures the daemon against the original scripts and a floor.
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup => setup::all(&workspace),
        Task::Components => components::build(&workspace),
        Task::Build => build(&workspace),
        Task::Xen { arguments } => {
            rig::set_up_xen(&workspace);
            build(&workspace)?;
            workspace.run_binary("xenplug-xen", &arguments)
        }
        Task::Test { arguments } => {
            rig::set_up(&workspace);
            rig::set_up_xen(&workspace);
            build(&workspace)?;
            workspace.test(&arguments)
        }
        Task::Trials(arguments) => {
            rig::set_up(&workspace);
            build(&workspace)?;
            trials::run(&workspace, &arguments)
        }
        Task::Fuzz { targets, seconds, keep } => fuzz::run(&workspace, &targets, seconds, keep),
        Task::Demo { arguments } => {
            build(&workspace)?;
            workspace.run_binary("xenplug-demo", &arguments)
        }
        Task::Bench { arguments } => {
            rig::set_up(&workspace);
            build(&workspace)?;
            workspace.run_binary("xenplug-bench", &arguments)
        }
    }
}

fn build(workspace: &Workspace) -> Result<()> {
    components::build(workspace)?;
    workspace.build_binaries()
}
