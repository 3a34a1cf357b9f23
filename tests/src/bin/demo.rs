//! The tour, [`xenplug_tests::demo`].
#![allow(clippy::print_stdout, reason = "showing is what it is for")]

use anyhow::Result;
use clap::Parser;
use xenplug_tests::demo::{self, Ground};

/// Plugs and unplugs a disk and a network card, and shows each step.
#[derive(Parser)]
#[command(name = "xenplug-demo")]
struct Arguments {
    /// On a machine that exists only in memory, also as root.
    #[arg(long)]
    simulated: bool,
}

fn main() -> Result<()> {
    let ground = Ground::find(Arguments::parse().simulated);
    let directory = tempfile::Builder::new().prefix("xenplug-demo-").tempdir()?;
    demo::run(&ground, directory.path(), &mut |line| println!("{line}"))
}
