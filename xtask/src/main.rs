//! `cargo xtask`: set-up, build, test, fault suite, demo and benchmarks, each from a bare clone.

mod arguments;
mod binaries;
mod components;
mod debian;
mod demo;
mod fuzz;
mod progress;
mod roots;
mod setup;
mod suite;
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
            roots::set_up(&workspace)?;
            roots::set_up_xen(&workspace)?;
            build(&workspace)?;
            workspace.run_binary_in_root("xenplug-xen", &arguments)?;
        }
        Task::Test(arguments) => {
            roots::set_up(&workspace)?;
            if arguments.needs_xen() {
                roots::set_up_xen(&workspace)?;
            }
            build(&workspace)?;
            suite::run(&workspace, &arguments)?;
        }
        Task::Trials(arguments) => {
            roots::set_up(&workspace)?;
            build(&workspace)?;
            trials::run(&workspace, &arguments)?;
        }
        Task::Fuzz { targets, seconds, keep } => fuzz::run(&workspace, &targets, seconds, keep)?,
        Task::Demo(arguments) => demo::run(&workspace, &arguments)?,
        Task::Bench(arguments) => {
            roots::set_up(&workspace)?;
            build(&workspace)?;
            workspace.run_binary_in_root("xenplug-bench", &arguments)?;
        }
    }
    Ok(())
}

fn build(workspace: &Workspace) -> Result<()> {
    workspace.build_binaries()?;
    components::build(workspace)
}
