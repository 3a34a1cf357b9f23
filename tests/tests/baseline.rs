//! The baseline reports each kind of leak, which these tests make on purpose.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    cases::Cases,
    harness::{Baseline, TestHost, attached_below, detach_below},
};

/// Time for a difference to disappear.
const MOMENT: Duration = Duration::from_millis(50);

/// Checks that the baseline reports exactly the expected line.
fn expect_report(host: &TestHost, baseline: &Baseline, expected: &str) -> Result<()> {
    let difference = baseline.difference_after(&host.scope(), MOMENT)?;
    ensure!(difference.contains(expected), "{expected:?} is not in:\n{difference}");
    ensure!(difference.lines().count() == 1, "more than {expected:?}:\n{difference}");
    Ok(())
}

/// Makes a leak by an `ip` command, checks that it is reported, and undoes it by another.
fn leak_of_ip(host: &TestHost, baseline: &Baseline, make: &str, undo: &str, expected: &str) -> Result<()> {
    host.namespace().ip(make)?;
    let reported = expect_report(host, baseline, expected);
    host.namespace().ip(undo)?;
    reported?;
    baseline.assert_same(host)
}

fn leak_of_loop(host: &TestHost, baseline: &Baseline) -> Result<()> {
    let image = host.image("leak.img", 1)?;
    let losetup = Command::new("losetup").arg("--find").arg(&image).status()?;
    ensure!(losetup.success(), "losetup: {losetup}");
    let device = attached_below(host.directory())?[0].device.display().to_string();
    let reported = expect_report(host, baseline, &format!("+ loop: {device} {}", image.display()));
    detach_below(host.directory())?;
    reported
}

fn leak_of_rule(host: &TestHost, baseline: &Baseline) -> Result<()> {
    let nft = |words: &[&str]| -> Result<()> {
        let mut nft = host.namespace().command("nft");
        let done = nft.args(words).status()?;
        ensure!(done.success(), "nft {words:?}: {done}");
        Ok(())
    };
    nft(&["add", "table", "inet", "leak"])?;
    let reported = expect_report(host, baseline, "+ rule: table inet leak");
    nft(&["delete", "table", "inet", "leak"])?;
    reported
}

fn leak_of_process(host: &TestHost, baseline: &Baseline) -> Result<()> {
    let mut process = host.namespace().command("sleep").arg("100").spawn()?;
    // Before exec the process is `nsenter`.
    std::thread::sleep(MOMENT);
    let reported = expect_report(host, baseline, &format!("+ process: {} sleep", process.id()));
    process.kill()?;
    process.wait()?;
    reported
}

fn leak_of_node(host: &TestHost, baseline: &Baseline) -> Result<()> {
    let mut store = host.connect()?;
    store.write("/local/domain/0/backend/vbd/9/51712", "leak")?;
    let reported = expect_report(host, baseline, "+ node: /local/domain/0/backend/vbd/9/51712 leak");
    store.remove("/local/domain/0/backend/vbd/9")?;
    reported
}

fn leak_of_watch(host: &TestHost, baseline: &Baseline) -> Result<()> {
    let mut store = host.connect()?;
    store.watch("/local/domain/9", "leak")?;
    expect_report(host, baseline, "+ watch: /local/domain/9 x 1")
}

fn leak_of_record(host: &TestHost, baseline: &Baseline) -> Result<()> {
    let daemon = host.daemon().context("no daemon")?;
    let record = daemon.config().run_directory().join("journal/vbd-9-51712.record");
    fs::write(&record, "leak")?;
    let reported = expect_report(host, baseline, "+ record: vbd-9-51712.record");
    fs::remove_file(record)?;
    reported
}

/// Checks that an attached disk is reported with the daemon's descriptor.
fn leak_of_descriptor(host: &mut TestHost, baseline: &Baseline) -> Result<()> {
    let disk = host.attach_disk(3, 0)?;
    host.expect_connected(&disk)?;
    let difference = baseline.difference_after(&host.scope(), MOMENT)?;
    host.end_guest(3, &[disk])?;
    ensure!(difference.contains("+ descriptor: /dev/loop"), "{difference}");
    Ok(())
}

#[test]
fn baseline_reports_each_kind_of_leak_in_one_line() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    host.namespace().ip("link add veth0 type veth peer name peer0")?;
    host.namespace()
        .ip("link add veth1 mtu 1400 type veth peer name peer1")?;
    host.namespace().ip("link set veth1 up")?;
    let baseline = host.baseline()?;
    let mut cases = Cases::default();
    for (make, undo, expected) in [
        (
            "link add leak0 type bridge",
            "link delete leak0",
            "+ link: leak0 down, port of nothing, mtu 1500",
        ),
        (
            "link set veth0 master xenbr0",
            "link set veth0 nomaster",
            "~ link: veth0 down, port of nothing, mtu 1500 -> ",
        ),
        (
            "link set veth1 mtu 1300",
            "link set veth1 mtu 1400",
            "~ link: veth1 up, port of nothing, mtu 1400 -> up, ",
        ),
        (
            "address add 192.0.2.1/32 dev veth0",
            "address delete 192.0.2.1/32 dev veth0",
            "+ address: 192.0.2.1/32 on",
        ),
        (
            "route add 192.0.2.7/32 dev veth1",
            "route delete 192.0.2.7/32 dev veth1",
            "+ route: \"192.0.2.7\" by \"veth1\"",
        ),
    ] {
        cases.case(expected, leak_of_ip(&host, &baseline, make, undo, expected));
    }
    for (name, leak) in [
        ("loop", leak_of_loop as fn(&TestHost, &Baseline) -> Result<()>),
        ("rule", leak_of_rule),
        ("process", leak_of_process),
        ("node", leak_of_node),
        ("watch", leak_of_watch),
        ("record", leak_of_record),
    ] {
        cases.case(name, leak(&host, &baseline));
    }
    cases.case("descriptor", leak_of_descriptor(&mut host, &baseline));
    cases.case("afterwards", baseline.assert_same(&host));
    cases.end()
}

#[test]
fn baseline_reports_lost_items() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let vif = host.attach_vif(3, 0)?;
    host.expect_connected(&vif)?;
    let baseline = host.baseline()?;
    host.namespace().ip(&format!("link set {} nomaster", vif.link()))?;
    expect_report(
        &host,
        &baseline,
        &format!(
            "~ link: {} up, port of xenbr0, mtu 1500 -> up, port of nothing",
            vif.link()
        ),
    )?;
    host.namespace().ip(&format!("link set {} master xenbr0", vif.link()))?;
    baseline.assert_same(&host)?;
    host.end_guest(3, &[vif])
}
