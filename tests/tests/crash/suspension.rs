//! The driver domain is suspended, and resumes, in the middle of what its daemon does with the store.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    harness::{Device, Disk, Nodes, TestHost, Vif},
    loud::say,
    trial::{Length, length},
};

/// The token of the test's watch.
const TOKEN: &str = "others";

/// What is attached and detached over and over.
fn comes_and_goes(machine: &TestHost) -> Result<[(Device, Nodes); 2]> {
    let image = machine.image("3-0.img", 4)?;
    Ok([
        (Device::disk(3, 0).served_by(1), Disk::on(&image)),
        (Device::card(3, 0).served_by(1), Vif::on("xenbr0")),
    ])
}

#[test]
fn driver_domain_suspended_in_a_transaction_serves_on() -> Result<()> {
    let mut machine = TestHost::apart()?;
    machine.start_daemon(machine.config()?)?;
    let image = machine.image("4-0.img", 4)?;
    let others = [Device::disk(4, 0).served_by(1), Device::card(4, 0).served_by(1)];
    machine.attach(&others[0], &Disk::on(&image))?;
    machine.attach(&others[1], &Vif::on("xenbr0"))?;
    for other in &others {
        machine.expect_connected(other)?;
    }
    let mut seen = machine.connect()?;
    for other in &others {
        seen.watch(&other.backend(), TOKEN)?;
        ensure!(
            seen.event(Duration::from_secs(5))?.is_some(),
            "a watch begins with an event"
        );
    }
    // At length before every request within a transaction, else before one of some.
    let step = match length() {
        Length::Short => 3,
        Length::Long => 1,
    };
    for (device, nodes) in comes_and_goes(&machine)? {
        machine.toolstack().build(3)?;
        let baseline = machine.baseline()?;
        let mut points = 0;
        for nth in (1..).step_by(step) {
            machine.xenbus()?.suspend_before(nth);
            machine.attach(&device, &nodes)?;
            machine
                .expect_connected(&device)
                .with_context(|| format!("suspended before request {nth} of its transactions"))?;
            machine.detach(&device)?;
            baseline.assert_same(&machine)?;
            if !machine.xenbus()?.suspended() {
                break;
            }
            points += 1;
        }
        say(&format!("{device:?}: suspended at {points} moments"));
        ensure!(points * step > 15, "only {points} requests within transactions");
        machine.toolstack().bury(3)?;
    }
    let noticed = seen.event(Duration::from_millis(100))?;
    ensure!(noticed.is_none(), "another device was written to: {noticed:?}");
    for other in &others {
        machine.expect_connected(other)?;
    }
    machine.end_guest(4, &others)
}
