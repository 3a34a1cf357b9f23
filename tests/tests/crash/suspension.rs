//! Suspension of the driver domain within the daemon's transactions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    cases::{Length, length},
    harness::{Device, Disk, Nodes, TestHost, Vif},
    loud::say,
};

/// Token of the test's watch.
const TOKEN: &str = "others";

/// Returns a disk and a vif with their nodes, to attach and detach repeatedly.
fn comes_and_goes(host: &TestHost) -> Result<[(Device, Nodes); 2]> {
    let image = host.image("3-0.img", 4)?;
    Ok([
        (Device::disk(3, 0).served_by(1), Disk::on(&image)),
        (Device::vif(3, 0).served_by(1), Vif::on("xenbr0")),
    ])
}

#[test]
fn driver_domain_suspended_in_a_transaction_serves_on() -> Result<()> {
    let mut host = TestHost::apart()?;
    host.start_daemon(host.config()?)?;
    let image = host.image("4-0.img", 4)?;
    let others = [Device::disk(4, 0).served_by(1), Device::vif(4, 0).served_by(1)];
    host.attach(&others[0], &Disk::on(&image))?;
    host.attach(&others[1], &Vif::on("xenbr0"))?;
    for other in &others {
        host.expect_connected(other)?;
    }
    let mut watcher = host.connect()?;
    for other in &others {
        watcher.watch(&other.backend(), TOKEN)?;
        ensure!(
            watcher.event(Duration::from_secs(5))?.is_some(),
            "a watch begins with an event"
        );
    }
    // In long runs before every request within a transaction, otherwise before some of them.
    let step = match length() {
        Length::Short => 3,
        Length::Long => 1,
    };
    for (device, nodes) in comes_and_goes(&host)? {
        host.toolstack().build(3)?;
        let baseline = host.baseline()?;
        let mut points = 0;
        for nth in (1..).step_by(step) {
            host.xenbus()?.suspend_before(nth);
            host.attach(&device, &nodes)?;
            host.expect_connected(&device)
                .with_context(|| format!("suspended before request {nth} of its transactions"))?;
            host.detach(&device)?;
            baseline.assert_same(&host)?;
            if !host.xenbus()?.suspended() {
                break;
            }
            points += 1;
        }
        say(&format!("{device:?}: suspended at {points} moments"));
        ensure!(points * step > 15, "only {points} requests within transactions");
        host.toolstack().bury(3)?;
    }
    let change = watcher.event(Duration::from_millis(100))?;
    ensure!(change.is_none(), "another device was written to: {change:?}");
    for other in &others {
        host.expect_connected(other)?;
    }
    host.end_guest(4, &others)
}
