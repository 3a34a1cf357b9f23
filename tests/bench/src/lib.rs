//! Benchmark of the time to attach devices with the original scripts, with the daemon, and with the floor program.
//!
//! All three are measured alike, on one real xenstored: from the write of `state=2` until a watch shows
//! `hotplug-status=connected`. The scripts are started right after that write, as libxl does when it reads state 2.
//! The benchmark also measures how long a script and its shim take to start and end, and how long each original script
//! and its shim take for a device.

mod contestant;
mod plot;
mod report;
mod scripts;
mod start;
mod workload;

use std::{path::Path, thread, time::Duration};

use anyhow::Result;

use contestant::Contestant;
pub use contestant::Name;
pub use report::{Figure, Report, Upkeep};
pub use scripts::{Pair, Pairs, measure as measure_scripts};
pub use start::Start;
use workload::Workload;

use xenplug_tests::harness::Kind;

/// Plan of a measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Disks, vifs or both.
    pub kinds: Vec<Kind>,
    /// Contestants.
    pub contestants: Vec<Name>,
    /// Numbers of devices at once.
    pub sizes: Vec<u32>,
    /// Repetitions with a single device.
    pub repeat: u32,
    /// The most devices that the scripts attach at once. The time for more is extrapolated, and marked so.
    pub scripts_up_to: u32,
    /// True to measure how long a script takes to start.
    pub starts: bool,
}

/// Time for which the idle daemon is observed.
const IDLE: Duration = Duration::from_secs(5);

/// Measures everything in the plan, in this process's network namespace, with files below `directory`.
pub fn run(plan: &Plan, directory: &Path, mut say: impl FnMut(&str)) -> Result<Report> {
    let mut report = Report::default();
    if plan.starts {
        report.starts = start::measure(directory, plan.repeat)?;
    }
    for &kind in &plan.kinds {
        for &name in &plan.contestants {
            // Each has a store and a process of its own, so that none inherits the heap of another.
            let mut workload = Workload::new(kind, directory)?;
            let mut contestant = Contestant::start(name, &workload)?;
            for &size in &plan.sizes {
                if name == Name::Script && size > plan.scripts_up_to {
                    continue;
                }
                let runs = if size == 1 {
                    plan.repeat
                } else {
                    (300 / size).clamp(3, 10)
                };
                let mut times = Vec::new();
                for _ in 0..runs {
                    times.push(workload.run(&mut contestant, size)?);
                }
                let figure = Figure::of(kind, name, size, times);
                say(&figure.to_string());
                report.figures.push(figure);
            }
            if let Some(daemon) = contestant.daemon() {
                report.upkeep.push(upkeep(&mut workload, daemon, kind, plan)?);
            }
        }
    }
    report.extrapolate_scripts(&plan.sizes);
    Ok(report)
}

/// Measures the idle daemon with the largest number of devices of the plan attached.
fn upkeep(workload: &mut Workload, contestant: &mut Contestant, kind: Kind, plan: &Plan) -> Result<Upkeep> {
    let devices = plan.sizes.iter().copied().max().unwrap_or(1);
    let attached = workload.attach(contestant, devices)?;
    thread::sleep(Duration::from_secs(2));
    let Some(daemon) = contestant.process() else {
        anyhow::bail!("the contestant is not the daemon")
    };
    let (resident, proportional) = daemon.memory()?;
    let before = daemon.processor_ticks()?;
    thread::sleep(IDLE);
    let idle_ticks = daemon.processor_ticks()? - before;
    workload.detach(contestant, &attached)?;
    Ok(Upkeep {
        kind,
        devices,
        resident,
        proportional,
        idle_ticks,
    })
}
