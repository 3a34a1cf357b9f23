//! Plugins that keep failing are left alone for longer each time, then quarantined, while others serve on.

use std::{
    fs,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Config, Device, Disk, TestHost, build_directory};

use crate::{
    device_for,
    guests::{DEADLINE, beside, guest},
};

/// A machine with a plugin that misbehaves, and these rules.
fn machine_with(name: &str, rules: &str) -> Result<TestHost> {
    let mut machine = TestHost::new()?;
    let config = beside(machine.config()?, &machine.images(), [guest(name)]);
    machine.start_daemon(config.with(&format!("\n[quarantine]\n{rules}\n")))?;
    Ok(machine)
}

/// The plugin is asked for a guest's disk, and fails it for this reason.
fn fails(machine: &mut TestHost, name: &str, frontend: u16, words: &[&str]) -> Result<()> {
    let (device, nodes) = device_for(machine, &guest(name), frontend, 0)?;
    machine.attach(&device, &nodes)?;
    machine.expect_failure(&device, "error", words)?;
    machine.toolstack().forget(&device)
}

/// `xenplug`, on this machine's daemon.
fn xenplug(machine: &TestHost, arguments: &[&str]) -> Result<Output> {
    let config = machine.daemon().context("it runs")?.config().file();
    Ok(Command::new(build_directory()?.join("xenplug"))
        .args(arguments)
        .env("XENPLUG_CONFIG", config)
        .output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// For whom a plugin is quarantined, as the status tells: `None` means all.
fn quarantined(machine: &TestHost, name: &str) -> Result<Vec<Option<String>>> {
    let status = machine.daemon().context("it runs")?.status()?;
    let plugins = status["plugins"].as_array().context("no list of plugins")?;
    let plugin = plugins
        .iter()
        .find(|plugin| plugin["name"] == name)
        .context("no such plugin")?;
    let quarantines = plugin["conduct"]["quarantines"].as_array().context("no list")?;
    Ok(quarantines
        .iter()
        .map(|one| one["guest"].as_str().map(str::to_owned))
        .collect())
}

fn reload(machine: &TestHost, config: &Config) -> Result<()> {
    const READ: &str = "the configuration was read again";
    let daemon = machine.daemon().context("it runs")?;
    let times = |log: String| log.matches(READ).count();
    let before = times(daemon.log());
    fs::write(config.file(), &config.text)?;
    daemon.signal(rustix::process::Signal::HUP)?;
    let until = Instant::now() + Duration::from_secs(20);
    while times(daemon.log()) == before {
        ensure!(Instant::now() < until, "it was not read again\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn failing_plugin_is_quarantined_until_released_or_replaced() -> Result<()> {
    const NAME: &str = "trap-in-connect";
    // Unlike in what is said of a quarantine, which names the last fault.
    const CRASHED: &str = "trap-in-connect: the plugin crashed";
    let mut machine = machine_with(NAME, "faults = 3\nguests = 2\npause = \"100ms\"\ntime = \"1h\"")?;
    let config = machine.daemon().context("it runs")?.config().clone();
    let baseline = machine.baseline()?;
    for _ in 0..3 {
        fails(&mut machine, NAME, 3, &[CRASHED])?;
    }
    let advice = [
        "quarantined for this guest",
        "3 faults",
        "crashed",
        "xenplug plugin release trap-in-connect",
    ];
    fails(&mut machine, NAME, 3, &advice)?;
    ensure!(
        matches!(&quarantined(&machine, NAME)?[..], [Some(_)]),
        "not for one guest"
    );

    // It is tried for another, and as it has not served anybody, that is the end for all.
    fails(&mut machine, NAME, 5, &[CRASHED])?;
    fails(&mut machine, NAME, 6, &["quarantined for all guests"])?;
    let good = machine.attach_disk(4, 0)?;
    machine.expect_connected(&good)?;
    assert_eq!(
        quarantined(&machine, NAME)?
            .iter()
            .filter(|whom| whom.is_none())
            .count(),
        1
    );
    let table = said(&xenplug(&machine, &["status"])?);
    ensure!(
        table.contains("plugin trap-in-connect is QUARANTINED for all guests for another"),
        "{table}"
    );
    let metrics = said(&xenplug(&machine, &["metrics"])?);
    for line in [
        "xenplug_plugin_faults_total{plugin=\"trap-in-connect\"} 4",
        "xenplug_plugin_quarantines{plugin=\"trap-in-connect\"} 2",
        "xenplug_plugin_quarantines{plugin=\"phy\"} 0",
    ] {
        ensure!(metrics.contains(line), "no {line:?} in {metrics}");
    }
    let log = machine.daemon().context("it runs")?.log();
    assert_eq!(log.matches("the plugin is quarantined").count(), 2, "{log}");

    reload(&machine, &config)?;
    fails(&mut machine, NAME, 6, &["quarantined for all guests"])?;
    let released = xenplug(&machine, &["plugin", "release", NAME])?;
    ensure!(released.status.success(), "{released:?}");
    fails(&mut machine, NAME, 6, &[CRASHED])?;
    let unknown = xenplug(&machine, &["plugin", "release", "absent"])?;
    ensure!(
        unknown.status.code() == Some(1) && !unknown.stderr.is_empty(),
        "{unknown:?}"
    );

    // With the one after the release these are three faults of two guests.
    for _ in 0..2 {
        fails(&mut machine, NAME, 3, &[CRASHED])?;
    }
    fails(&mut machine, NAME, 3, &["quarantined for all guests"])?;
    reload(
        &machine,
        &config.replacing("guests/trap-in-connect.wasm", "guests/remembers.wasm"),
    )?;
    let (device, nodes) = device_for(&machine, &guest(NAME), 3, 0)?;
    machine.attach(&device, &nodes)?;
    machine.expect_status(&device, "connected")?;
    for guest in [5, 6] {
        machine.toolstack().bury(guest)?;
    }
    machine.end_guest(3, &[device])?;
    machine.end_guest(4, &[good])?;
    baseline.assert_same(&machine)
}

#[test]
fn guest_cannot_quarantine_a_plugin_for_others() -> Result<()> {
    // It crashes over an image that is there, and connects without.
    const NAME: &str = "foreign-handle";
    let mut machine = machine_with(NAME, "faults = 2\nguests = 2\npause = \"0s\"")?;
    let baseline = machine.baseline()?;
    let serve = |machine: &mut TestHost, frontend| -> Result<Device> {
        let device = Device::disk(frontend, 0);
        let absent = machine.images().join("absent.img");
        machine.attach(&device, &Disk::on(&absent).with("script", NAME))?;
        machine.expect_status(&device, "connected")?;
        Ok(device)
    };
    let served = serve(&mut machine, 7)?;
    for frontend in [3, 5, 6] {
        for _ in 0..2 {
            fails(&mut machine, NAME, frontend, &["foreign-handle: the plugin crashed"])?;
        }
        fails(&mut machine, NAME, frontend, &["quarantined for this guest"])?;
    }
    let whom = quarantined(&machine, NAME)?;
    ensure!(whom.len() == 3 && whom.iter().all(Option::is_some), "{whom:?}");
    let another = serve(&mut machine, 8)?;
    for guest in [3, 5, 6] {
        machine.toolstack().bury(guest)?;
    }
    machine.end_guest(7, &[served])?;
    machine.end_guest(8, &[another])?;
    baseline.assert_same(&machine)
}

#[test]
fn guest_waits_out_its_plugins_backoff_and_may_detach_meanwhile() -> Result<()> {
    const NAME: &str = "trap-in-connect";
    let mut machine = machine_with(NAME, "pause = \"3s\"")?;
    let baseline = machine.baseline()?;
    fails(&mut machine, NAME, 3, &["crashed"])?;
    let failed = Instant::now();
    let (device, nodes) = device_for(&machine, &guest(NAME), 3, 1)?;
    machine.attach(&device, &nodes)?;
    // Another guest does not wait.
    fails(&mut machine, NAME, 4, &["crashed"])?;
    machine.expect_failure(&device, "error", &["crashed"])?;
    let waited = failed.elapsed();
    ensure!(waited > Duration::from_millis(2500), "it waited for {waited:?}");
    machine.toolstack().forget(&device)?;
    // Six seconds to wait now: it goes before.
    machine.attach(&device, &nodes)?;
    machine.expect_state(&device, "2")?;
    machine.detach(&device)?;
    ensure!(
        failed.elapsed() < waited + Duration::from_secs(5),
        "its end had to wait, too"
    );
    for guest in [3, 4] {
        machine.toolstack().bury(guest)?;
    }
    baseline.assert_same(&machine)
}

#[test]
fn quarantined_plugins_resources_are_released_without_it() -> Result<()> {
    const NAME: &str = "spin-in-disconnect";
    let mut machine = machine_with(NAME, "faults = 2\npause = \"0s\"")?;
    let baseline = machine.baseline()?;
    let mut devices = Vec::new();
    for index in 0..4 {
        let (device, nodes) = device_for(&machine, &guest(NAME), 3, index)?;
        machine.attach(&device, &nodes)?;
        machine.expect_status(&device, "connected")?;
        devices.push(device);
    }
    for device in &devices[..2] {
        let began = Instant::now();
        machine.detach(device)?;
        ensure!(began.elapsed() >= DEADLINE, "it did not spin");
    }
    for device in &devices[2..] {
        machine.detach(device)?;
    }
    let log = machine.daemon().context("it runs")?.log();
    assert_eq!(log.matches("given back all the same").count(), 2, "{log}");
    machine.end_guest(3, &[])?;
    baseline.assert_same(&machine)
}
