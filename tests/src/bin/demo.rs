//! Program of the demo [`xenplug_tests::demo`].
#![allow(clippy::print_stdout, reason = "the demo prints its steps")]

use anyhow::Result;
use clap::Parser;
use xenplug_tests::demo::{self, DemoHost};

/// Attaches and detaches a disk and a vif, and shows each step.
#[derive(Parser)]
#[command(name = "xenplug-demo")]
struct Arguments {
    /// Simulates the host in memory, also as root.
    #[arg(long)]
    simulated: bool,
}

fn main() -> Result<()> {
    let host = DemoHost::find(Arguments::parse().simulated);
    let directory = tempfile::Builder::new().prefix("xenplug-demo-").tempdir()?;
    demo::run(&host, directory.path(), &mut |line| println!("{line}"))
}
