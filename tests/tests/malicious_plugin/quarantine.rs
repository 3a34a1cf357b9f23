//! Backoff for plugins that keep failing, while others serve on.

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

/// A host with a plugin that misbehaves, and these rules.
fn host_with(name: &str, rules: &str) -> Result<TestHost> {
    let mut host = TestHost::new()?;
    let config = beside(host.config()?, &host.images(), [guest(name)]);
    host.start_daemon(config.with(&format!("\n[quarantine]\n{rules}\n")))?;
    Ok(host)
}

/// Attaches a guest's disk, which the plugin fails for this reason.
fn fails(host: &mut TestHost, name: &str, frontend: u16, words: &[&str]) -> Result<()> {
    let (device, nodes) = device_for(host, &guest(name), frontend, 0)?;
    host.attach(&device, &nodes)?;
    host.expect_failure(&device, "error", words)?;
    host.toolstack().forget(&device)
}

/// `xenplug`, on this host's daemon.
fn xenplug(host: &TestHost, arguments: &[&str]) -> Result<Output> {
    let config = host.daemon().context("it runs")?.config().file();
    Ok(Command::new(build_directory()?.join("xenplug"))
        .args(arguments)
        .env("XENPLUG_CONFIG", config)
        .output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Reads from the status for whom a plugin is quarantined: `None` means all.
fn quarantined(host: &TestHost, name: &str) -> Result<Vec<Option<String>>> {
    let status = host.daemon().context("it runs")?.status()?;
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

fn reload(host: &TestHost, config: &Config) -> Result<()> {
    const READ: &str = "the configuration was read again";
    let daemon = host.daemon().context("it runs")?;
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
    let mut host = host_with(NAME, "faults = 3\nguests = 2\npause = \"100ms\"\ntime = \"1h\"")?;
    let config = host.daemon().context("it runs")?.config().clone();
    let baseline = host.baseline()?;
    for _ in 0..3 {
        fails(&mut host, NAME, 3, &[CRASHED])?;
    }
    let advice = [
        "quarantined for this guest",
        "3 faults",
        "crashed",
        "xenplug plugin release trap-in-connect",
    ];
    fails(&mut host, NAME, 3, &advice)?;
    ensure!(matches!(&quarantined(&host, NAME)?[..], [Some(_)]), "not for one guest");

    // It is tried for another, and as it has not served anybody, that is the end for all.
    fails(&mut host, NAME, 5, &[CRASHED])?;
    fails(&mut host, NAME, 6, &["quarantined for all guests"])?;
    let good = host.attach_disk(4, 0)?;
    host.expect_connected(&good)?;
    assert_eq!(
        quarantined(&host, NAME)?.iter().filter(|whom| whom.is_none()).count(),
        1
    );
    let table = said(&xenplug(&host, &["status"])?);
    ensure!(
        table.contains("plugin trap-in-connect is QUARANTINED for all guests for another"),
        "{table}"
    );
    let metrics = said(&xenplug(&host, &["metrics"])?);
    for line in [
        "xenplug_plugin_faults_total{plugin=\"trap-in-connect\"} 4",
        "xenplug_plugin_quarantines{plugin=\"trap-in-connect\"} 2",
        "xenplug_plugin_quarantines{plugin=\"phy\"} 0",
    ] {
        ensure!(metrics.contains(line), "no {line:?} in {metrics}");
    }
    let log = host.daemon().context("it runs")?.log();
    assert_eq!(log.matches("the plugin is quarantined").count(), 2, "{log}");

    reload(&host, &config)?;
    fails(&mut host, NAME, 6, &["quarantined for all guests"])?;
    let released = xenplug(&host, &["plugin", "release", NAME])?;
    ensure!(released.status.success(), "{released:?}");
    fails(&mut host, NAME, 6, &[CRASHED])?;
    let unknown = xenplug(&host, &["plugin", "release", "absent"])?;
    ensure!(
        unknown.status.code() == Some(1) && !unknown.stderr.is_empty(),
        "{unknown:?}"
    );

    // With the one after the release these are three faults of two guests.
    for _ in 0..2 {
        fails(&mut host, NAME, 3, &[CRASHED])?;
    }
    fails(&mut host, NAME, 3, &["quarantined for all guests"])?;
    reload(
        &host,
        &config.replacing("guests/trap-in-connect.wasm", "guests/remembers.wasm"),
    )?;
    let (device, nodes) = device_for(&host, &guest(NAME), 3, 0)?;
    host.attach(&device, &nodes)?;
    host.expect_status(&device, "connected")?;
    for guest in [5, 6] {
        host.toolstack().bury(guest)?;
    }
    host.end_guest(3, &[device])?;
    host.end_guest(4, &[good])?;
    baseline.assert_same(&host)
}

#[test]
fn guest_cannot_quarantine_a_plugin_for_others() -> Result<()> {
    // It crashes over an image that is there, and connects without.
    const NAME: &str = "foreign-handle";
    let mut host = host_with(NAME, "faults = 2\nguests = 2\npause = \"0s\"")?;
    let baseline = host.baseline()?;
    let serve = |host: &mut TestHost, frontend| -> Result<Device> {
        let device = Device::disk(frontend, 0);
        let absent = host.images().join("absent.img");
        host.attach(&device, &Disk::on(&absent).with("script", NAME))?;
        host.expect_status(&device, "connected")?;
        Ok(device)
    };
    let served = serve(&mut host, 7)?;
    for frontend in [3, 5, 6] {
        for _ in 0..2 {
            fails(&mut host, NAME, frontend, &["foreign-handle: the plugin crashed"])?;
        }
        fails(&mut host, NAME, frontend, &["quarantined for this guest"])?;
    }
    let whom = quarantined(&host, NAME)?;
    ensure!(whom.len() == 3 && whom.iter().all(Option::is_some), "{whom:?}");
    let another = serve(&mut host, 8)?;
    for guest in [3, 5, 6] {
        host.toolstack().bury(guest)?;
    }
    host.end_guest(7, &[served])?;
    host.end_guest(8, &[another])?;
    baseline.assert_same(&host)
}

#[test]
fn guest_waits_out_its_plugins_backoff_and_may_detach_meanwhile() -> Result<()> {
    const NAME: &str = "trap-in-connect";
    let mut host = host_with(NAME, "pause = \"3s\"")?;
    let baseline = host.baseline()?;
    fails(&mut host, NAME, 3, &["crashed"])?;
    let failed = Instant::now();
    let (device, nodes) = device_for(&host, &guest(NAME), 3, 1)?;
    host.attach(&device, &nodes)?;
    // Another guest does not wait.
    fails(&mut host, NAME, 4, &["crashed"])?;
    host.expect_failure(&device, "error", &["crashed"])?;
    let waited = failed.elapsed();
    ensure!(waited > Duration::from_millis(2500), "it waited for {waited:?}");
    host.toolstack().forget(&device)?;
    // Six seconds to wait now: it goes before.
    host.attach(&device, &nodes)?;
    host.expect_state(&device, "2")?;
    host.detach(&device)?;
    ensure!(
        failed.elapsed() < waited + Duration::from_secs(5),
        "its end had to wait, too"
    );
    for guest in [3, 4] {
        host.toolstack().bury(guest)?;
    }
    baseline.assert_same(&host)
}

#[test]
fn quarantined_plugins_resources_are_released_without_it() -> Result<()> {
    const NAME: &str = "spin-in-disconnect";
    let mut host = host_with(NAME, "faults = 2\npause = \"0s\"")?;
    let baseline = host.baseline()?;
    let mut devices = Vec::new();
    for index in 0..4 {
        let (device, nodes) = device_for(&host, &guest(NAME), 3, index)?;
        host.attach(&device, &nodes)?;
        host.expect_status(&device, "connected")?;
        devices.push(device);
    }
    for device in &devices[..2] {
        let began = Instant::now();
        host.detach(device)?;
        ensure!(began.elapsed() >= DEADLINE, "it did not spin");
    }
    for device in &devices[2..] {
        host.detach(device)?;
    }
    let log = host.daemon().context("it runs")?.log();
    assert_eq!(log.matches("given back all the same").count(), 2, "{log}");
    host.end_guest(3, &[])?;
    baseline.assert_same(&host)
}
