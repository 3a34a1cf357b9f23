//! `cargo xtask`: set-up, build, test, fault suite, demo and benchmarks, each from a bare clone.

mod arguments;
mod components;
mod debian;
mod demo;
mod fuzz;
mod progress;
mod rig;
mod setup;
mod terminal;
mod trials;
mod wasm;
mod workspace;

use std::{env, process::ExitCode};

use anyhow::Result;
use arguments::Task;
use workspace::Workspace;

fn main() -> ExitCode {
    match Task::parse(env::args().skip(1).collect()).and_then(run) {
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
        Task::Help(text) => terminal::answer(&text),
        Task::Setup => setup::all(&workspace)?,
        Task::Components => {
            demo::build_shipped(&workspace, &[components::COMPONENTIZE])?;
            components::build(&workspace)?;
        }
        Task::Build => build(&workspace)?,
        Task::Xen(arguments) => {
            rig::set_up_xen(&workspace);
            build(&workspace)?;
            workspace.run_binary("xenplug-xen", &arguments)?;
        }
        Task::Test(arguments) => {
            rig::set_up(&workspace);
            rig::set_up_xen(&workspace);
            build(&workspace)?;
            workspace.test(&arguments)?;
        }
        Task::Trials(arguments) => {
            rig::set_up(&workspace);
            build(&workspace)?;
            trials::run(&workspace, &arguments)?;
        }
        Task::Fuzz { targets, seconds, keep } => fuzz::run(&workspace, &targets, seconds, keep)?,
        Task::Demo(arguments) => demo::run(&workspace, &arguments)?,
        Task::Bench(arguments) => {
            rig::set_up(&workspace);
            build(&workspace)?;
            workspace.run_binary("xenplug-bench", &arguments)?;
        }
    }
    Ok(())
}

fn build(workspace: &Workspace) -> Result<()> {
    workspace.build_binaries()?;
    components::build(workspace)
}
