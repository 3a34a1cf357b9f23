//! Program that runs scenarios on real Xen ([`xenplug_tests::xen`]) and prints a table of the results.
#![allow(clippy::print_stdout, reason = "the table is the program's output")]
#![allow(clippy::print_stderr, reason = "progress goes to the user")]

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use xenplug_tests::xen::{self, BackendIn, Side};

/// Runs scenarios on real Xen under emulation: in a driver domain and in dom0, with the originals and with Xenplug.
///
/// A scenario is a shell script in tests/xen/scenarios. The logs of each boot (consoles, store trace, daemon) are in
/// target/xen/PLACE-SIDE.
#[derive(Parser)]
#[command(name = "cargo xtask xen", bin_name = "cargo xtask xen")]
struct Arguments {
    /// Names of the scenarios to run; by default, all but those that run only by name.
    scenarios: Vec<String>,
    /// Lists the scenarios, and runs none.
    #[arg(long)]
    list: bool,
    /// Runs only the boots with the backends in this domain.
    #[arg(long, value_enum)]
    place: Option<WhichBackend>,
    /// Runs only this side: Xen's original scripts or Xenplug.
    #[arg(long, value_enum)]
    side: Option<WhichSide>,
    /// Number of rounds of `attach`, `hotplug` and `race`.
    #[arg(long)]
    rounds: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum WhichBackend {
    DriverDomain,
    Dom0,
}

#[derive(Clone, Copy, ValueEnum)]
enum WhichSide {
    Theirs,
    Ours,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let all = xen::scenarios()?;
    for name in &arguments.scenarios {
        ensure!(
            all.iter().any(|scenario| scenario.name == *name),
            "no scenario {name}; there are {}",
            all.iter()
                .map(|scenario| scenario.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    if arguments.list {
        for scenario in &all {
            let places: Vec<_> = scenario.places.iter().map(|place| place.name()).collect();
            let by_name = if scenario.by_name { ", only by name" } else { "" };
            println!(
                "{:<14} {} [{}{by_name}]",
                scenario.name,
                scenario.title,
                places.join(", ")
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let scenarios = if arguments.scenarios.is_empty() {
        xen::usual_scenarios()?
    } else {
        let named = |scenario: &xen::Scenario| arguments.scenarios.contains(&scenario.name);
        all.into_iter().filter(named).collect()
    };
    let places = match arguments.place {
        None => BackendIn::ALL.to_vec(),
        Some(WhichBackend::DriverDomain) => vec![BackendIn::DriverDomain],
        Some(WhichBackend::Dom0) => vec![BackendIn::Dom0],
    };
    let sides = match arguments.side {
        None => Side::ALL.to_vec(),
        Some(WhichSide::Theirs) => vec![Side::Theirs],
        Some(WhichSide::Ours) => vec![Side::Ours],
    };
    let report = xen::run(&scenarios, &places, &sides, arguments.rounds, &|ran| {
        eprintln!("    {ran}")
    })?;
    println!("{}", xen::table(&scenarios, &report));
    Ok(if xen::ours_passed(&report) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
