//! Program of the benchmark [`xenplug_bench`]: prints a table, and writes `plug.svg` and `plug.json`.
#![allow(clippy::print_stdout, reason = "the table is the program's output")]

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use xenplug_bench::{Name, Plan, measure_scripts, run};
use xenplug_tests::harness::{Kind, LoopPool, Namespace, build_directory};

/// Environment variable of the run inside the private namespace.
const INSIDE: &str = "XENPLUG_BENCH_INSIDE";

/// Measures the time to attach devices with the original scripts, xenplugd and the floor, and a script's start-up time.
#[derive(Parser)]
#[command(name = "xenplug-bench")]
struct Arguments {
    /// Kind of device to attach, or `start`; all without it.
    what: Option<What>,
    /// Contestants.
    #[arg(long, value_delimiter = ',', default_value = "script,xenplugd,floor")]
    only: Vec<Who>,
    /// Numbers of devices at once.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000")]
    sizes: Vec<u32>,
    /// Repetitions with a single device.
    #[arg(long, default_value_t = 50)]
    repeat: u32,
    /// The most devices that the scripts attach at once; the time for more is extrapolated.
    #[arg(long, default_value_t = 100)]
    scripts_up_to: u32,
    /// Directory of the plot and the JSON; without it `bench` beside the build directory.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Disk,
    Vif,
    /// A script and its shim.
    Start,
    /// Each original script, and its shim with the daemon; only by this name.
    Scripts,
}

#[derive(Clone, Copy, ValueEnum)]
enum Who {
    Script,
    Xenplugd,
    Floor,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if env::var_os(INSIDE).is_none() {
        // The whole benchmark runs in the namespace, so that a script starts as cheaply as from libxl.
        let namespace = Namespace::new()?;
        let inside = namespace
            .command(env::current_exe()?)
            .args(env::args_os().skip(1))
            .env(INSIDE, "1")
            .status()?;
        if !inside.success() {
            bail!("the benchmark failed");
        }
        return Ok(());
    }
    if let Some(What::Scripts) = arguments.what {
        let pairs = measure_scripts(arguments.repeat, |line| println!("{line}"))?;
        println!("\n{pairs}");
        return Ok(());
    }
    let out = match arguments.out {
        Some(out) => out,
        None => build_directory()?
            .parent()
            .context("the build directory has no parent")?
            .join("bench"),
    };
    fs::create_dir_all(&out)?;
    let plan = Plan {
        kinds: match arguments.what {
            Some(What::Disk) => vec![Kind::Vbd],
            Some(What::Vif) => vec![Kind::Vif],
            Some(What::Start | What::Scripts) => Vec::new(),
            None => vec![Kind::Vbd, Kind::Vif],
        },
        contestants: arguments
            .only
            .iter()
            .map(|who| match who {
                Who::Script => Name::Script,
                Who::Xenplugd => Name::Daemon,
                Who::Floor => Name::Floor,
            })
            .collect(),
        sizes: arguments.sizes,
        repeat: arguments.repeat,
        scripts_up_to: arguments.scripts_up_to,
        starts: matches!(arguments.what, None | Some(What::Start)),
    };
    let directory = tempfile::Builder::new().prefix("xenplug-bench-").tempdir()?;
    let _pool = LoopPool::now()?;
    let report = run(&plan, directory.path(), |line| println!("{line}"))?;
    println!("\n{report}");
    if plan.kinds.is_empty() {
        return Ok(());
    }
    report.plot(&out.join("plug.svg"))?;
    fs::write(out.join("plug.json"), serde_json::to_string_pretty(&report.json())?)?;
    println!("\nPlot and figures: {}/plug.{{svg,json}}", out.display());
    Ok(())
}
