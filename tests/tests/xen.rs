//! The scenarios of real Xen on the test hosts. `cargo xtask xen` runs them on Xen beside it, and shows both.

use std::env;

use anyhow::{Result, ensure};
use xenplug_tests::{
    loud::say,
    xen::{self, BackendIn, Parts, Side},
};

#[test]
fn real_xen_passes_every_scenario() -> Result<()> {
    if let Err(missing) = Parts::find().and_then(|parts| parts.emulator()) {
        ensure!(env::var("CI").as_deref() != Ok("true"), "{missing:#}");
        say(&format!("SKIPPED, real Xen did not run: {missing:#}"));
        return Ok(());
    }
    let scenarios = xen::usual_scenarios()?;
    say("    real Xen boots under emulation; this takes some minutes");
    // `cargo xtask xen` measures more rounds.
    let rounds = Some(3);
    let report = xen::run(&scenarios, &BackendIn::ALL, &[Side::Ours], rounds, &|ran| {
        say(&format!("    {ran}"))
    })?;
    // Every scenario runs on one host at least.
    ensure!(!scenarios.is_empty() && report.len() >= scenarios.len(), "not all ran");
    ensure!(
        xen::ours_passed(&report),
        "{}\nThe logs are in {}",
        xen::table(&scenarios, &report),
        Parts::workplace()?.display()
    );
    Ok(())
}
