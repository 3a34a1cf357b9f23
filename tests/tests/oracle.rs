//! The oracle of all trials sees what is left: each kind of leak is made on purpose, and reported.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    harness::{Baseline, TestHost, attached_below, detach_below},
    trial::Trial,
};

/// How long it looks for a difference to go.
const MOMENT: Duration = Duration::from_millis(50);

/// What is to be seen of a leak, and nothing else.
fn sees(machine: &TestHost, baseline: &Baseline, expected: &str) -> Result<()> {
    let difference = baseline.difference_after(&machine.scope(), MOMENT)?;
    ensure!(difference.contains(expected), "{expected:?} is not in:\n{difference}");
    ensure!(difference.lines().count() == 1, "more than {expected:?}:\n{difference}");
    Ok(())
}

/// Makes a leak by an `ip` command, undoes it by another, and sees that it was seen.
fn leak_of_ip(machine: &TestHost, baseline: &Baseline, make: &str, undo: &str, expected: &str) -> Result<()> {
    machine.namespace().ip(make)?;
    let seen = sees(machine, baseline, expected);
    machine.namespace().ip(undo)?;
    seen?;
    baseline.assert_same(machine)
}

fn leak_of_loop(machine: &TestHost, baseline: &Baseline) -> Result<()> {
    let image = machine.image("leak.img", 1)?;
    let losetup = Command::new("losetup").arg("--find").arg(&image).status()?;
    ensure!(losetup.success(), "losetup: {losetup}");
    let device = attached_below(machine.directory())?[0].device.display().to_string();
    let seen = sees(machine, baseline, &format!("+ loop: {device} {}", image.display()));
    detach_below(machine.directory())?;
    seen
}

fn leak_of_rule(machine: &TestHost, baseline: &Baseline) -> Result<()> {
    let nft = |words: &[&str]| -> Result<()> {
        let mut nft = machine.namespace().command("nft");
        machine.rig().equip(&mut nft);
        let done = nft.args(words).status()?;
        ensure!(done.success(), "nft {words:?}: {done}");
        Ok(())
    };
    nft(&["add", "table", "inet", "leak"])?;
    let seen = sees(machine, baseline, "+ rule: table inet leak");
    nft(&["delete", "table", "inet", "leak"])?;
    seen
}

fn leak_of_process(machine: &TestHost, baseline: &Baseline) -> Result<()> {
    let mut process = machine.namespace().command("sleep").arg("100").spawn()?;
    // It is `nsenter` at first.
    std::thread::sleep(MOMENT);
    let seen = sees(machine, baseline, &format!("+ process: {} sleep", process.id()));
    process.kill()?;
    process.wait()?;
    seen
}

fn leak_of_node(machine: &TestHost, baseline: &Baseline) -> Result<()> {
    let mut store = machine.connect()?;
    store.write("/local/domain/0/backend/vbd/9/51712", "leak")?;
    let seen = sees(machine, baseline, "+ node: /local/domain/0/backend/vbd/9/51712 leak");
    store.remove("/local/domain/0/backend/vbd/9")?;
    seen
}

fn leak_of_watch(machine: &TestHost, baseline: &Baseline) -> Result<()> {
    let mut store = machine.connect()?;
    store.watch("/local/domain/9", "leak")?;
    sees(machine, baseline, "+ watch: /local/domain/9 x 1")
}

fn leak_of_record(machine: &TestHost, baseline: &Baseline) -> Result<()> {
    let daemon = machine.daemon().context("no daemon")?;
    let record = daemon.config().run_directory().join("journal/vbd-9-51712.record");
    fs::write(&record, "leak")?;
    let seen = sees(machine, baseline, "+ record: vbd-9-51712.record");
    fs::remove_file(record)?;
    seen
}

/// A descriptor of the daemon, which a disk that is plugged takes.
fn leak_of_descriptor(machine: &mut TestHost, baseline: &Baseline) -> Result<()> {
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_connected(&disk)?;
    let difference = baseline.difference_after(&machine.scope(), MOMENT)?;
    machine.end_guest(3, &[disk])?;
    ensure!(difference.contains("+ descriptor: /dev/loop"), "{difference}");
    Ok(())
}

#[test]
fn baseline_reports_each_kind_of_leak_in_one_line() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    machine.namespace().ip("link add veth0 type veth peer name peer0")?;
    machine
        .namespace()
        .ip("link add veth1 mtu 1400 type veth peer name peer1")?;
    machine.namespace().ip("link set veth1 up")?;
    let baseline = machine.baseline()?;
    let mut trial = Trial::default();
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
        trial.case(expected, leak_of_ip(&machine, &baseline, make, undo, expected));
    }
    for (name, leak) in [
        ("loop", leak_of_loop as fn(&TestHost, &Baseline) -> Result<()>),
        ("rule", leak_of_rule),
        ("process", leak_of_process),
        ("node", leak_of_node),
        ("watch", leak_of_watch),
        ("record", leak_of_record),
    ] {
        trial.case(name, leak(&machine, &baseline));
    }
    trial.case("descriptor", leak_of_descriptor(&mut machine, &baseline));
    trial.case("afterwards", baseline.assert_same(&machine));
    trial.end()
}

#[test]
fn baseline_reports_lost_items() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let card = machine.attach_card(3, 0)?;
    machine.expect_connected(&card)?;
    let baseline = machine.baseline()?;
    machine.namespace().ip(&format!("link set {} nomaster", card.link()))?;
    sees(
        &machine,
        &baseline,
        &format!(
            "~ link: {} up, port of xenbr0, mtu 1500 -> up, port of nothing",
            card.link()
        ),
    )?;
    machine
        .namespace()
        .ip(&format!("link set {} master xenbr0", card.link()))?;
    baseline.assert_same(&machine)?;
    machine.end_guest(3, &[card])
}
