//! Backoff of plugins that keep failing, from the guest whose devices they fail, while others are served.

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

/// Starts a daemon with a plugin that misbehaves and these `[backoff]` times.
fn host_with(name: &str, times: &str) -> Result<TestHost> {
    let mut host = TestHost::new()?;
    let config = beside(host.config()?, &host.images(), [guest(name)]);
    host.start_daemon(config.with(&format!("\n[backoff]\n{times}\n")))?;
    Ok(host)
}

/// Attaches a guest's disk, which the plugin fails for this reason.
fn fails(host: &mut TestHost, name: &str, frontend: u16, words: &[&str]) -> Result<()> {
    let (device, nodes) = device_for(host, &guest(name), frontend, 0)?;
    host.attach(&device, &nodes)?;
    host.expect_failure(&device, "error", words)?;
    host.toolstack().forget(&device)
}

/// Runs `xenplug` on this host's daemon.
fn xenplug(host: &TestHost, arguments: &[&str]) -> Result<Output> {
    let config = host.daemon().context("it runs")?.config().file();
    Ok(Command::new(build_directory()?.join("xenplug"))
        .args(arguments)
        .env("XENPLUG_CONFIG", config)
        .output()?)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Reads from the status the guests that a plugin backs off from.
fn backoffs(host: &TestHost, name: &str) -> Result<Vec<String>> {
    let status = host.daemon().context("it runs")?.status()?;
    let plugins = status["plugins"].as_array().context("no list of plugins")?;
    let plugin = plugins
        .iter()
        .find(|plugin| plugin["name"] == name)
        .context("no such plugin")?;
    let backoffs = plugin["backoffs"].as_array().context("no list")?;
    Ok(backoffs
        .iter()
        .filter_map(|backoff| backoff["guest"].as_str().map(str::to_owned))
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
fn failing_plugin_backs_off_until_another_component_is_loaded() -> Result<()> {
    const NAME: &str = "trap-in-connect";
    // The reason of a device that fails during a backoff names the last failure differently.
    const CRASHED: &str = "trap-in-connect: the plugin crashed";
    let mut host = host_with(NAME, "first = \"1h\"\nlongest = \"1h\"")?;
    let config = host.daemon().context("it runs")?.config().clone();
    let baseline = host.baseline()?;
    fails(&mut host, NAME, 3, &[CRASHED])?;
    let reason = [
        "does not run for this guest",
        "failures in a row: 1",
        "crashed",
        "change the plugin",
    ];
    fails(&mut host, NAME, 3, &reason)?;
    ensure!(backoffs(&host, NAME)?.len() == 1, "not for one guest");

    // Other guests of the same plugin and other plugins are served.
    fails(&mut host, NAME, 5, &[CRASHED])?;
    let good = host.attach_disk(4, 0)?;
    host.expect_connected(&good)?;
    assert_eq!(backoffs(&host, NAME)?.len(), 2);
    let table = stdout(&xenplug(&host, &["status"])?);
    ensure!(table.contains("plugin trap-in-connect BACKS OFF from guest"), "{table}");
    let metrics = stdout(&xenplug(&host, &["metrics"])?);
    for line in [
        "xenplug_plugin_faults_total{plugin=\"trap-in-connect\"} 2",
        "xenplug_plugin_backoffs{plugin=\"trap-in-connect\"} 2",
        "xenplug_plugin_backoffs{plugin=\"phy\"} 0",
    ] {
        ensure!(metrics.contains(line), "no {line:?} in {metrics}");
    }
    let log = host.daemon().context("it runs")?.log();
    assert_eq!(log.matches("backs off from guest").count(), 2, "{log}");

    // A reload of the same component changes nothing. Another component starts without a history.
    reload(&host, &config)?;
    fails(&mut host, NAME, 5, &["does not run for this guest"])?;
    reload(
        &host,
        &config.replacing("guests/trap-in-connect.wasm", "guests/remembers.wasm"),
    )?;
    let (device, nodes) = device_for(&host, &guest(NAME), 3, 0)?;
    host.attach(&device, &nodes)?;
    host.expect_status(&device, "connected")?;
    host.toolstack().bury(5)?;
    host.end_guest(3, &[device])?;
    host.end_guest(4, &[good])?;
    baseline.assert_same(&host)
}

#[test]
fn guest_cannot_make_a_plugin_back_off_from_others() -> Result<()> {
    // The plugin crashes if the image exists, and connects without it.
    const NAME: &str = "foreign-handle";
    let mut host = host_with(NAME, "first = \"1h\"\nlongest = \"1h\"")?;
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
        fails(&mut host, NAME, frontend, &["foreign-handle: the plugin crashed"])?;
        fails(&mut host, NAME, frontend, &["does not run for this guest"])?;
    }
    let guests = backoffs(&host, NAME)?;
    ensure!(guests.len() == 3, "{guests:?}");
    let another = serve(&mut host, 8)?;
    for guest in [3, 5, 6] {
        host.toolstack().bury(guest)?;
    }
    host.end_guest(7, &[served])?;
    host.end_guest(8, &[another])?;
    baseline.assert_same(&host)
}

#[test]
fn device_waits_for_a_short_backoff_and_may_leave_meanwhile() -> Result<()> {
    const NAME: &str = "trap-in-connect";
    let mut host = host_with(NAME, "first = \"3s\"")?;
    let baseline = host.baseline()?;
    fails(&mut host, NAME, 3, &["crashed"])?;
    let failed = Instant::now();
    let (device, nodes) = device_for(&host, &guest(NAME), 3, 1)?;
    host.attach(&device, &nodes)?;
    // Another guest has no backoff.
    fails(&mut host, NAME, 4, &["crashed"])?;
    host.expect_failure(&device, "error", &["crashed"])?;
    let waited = failed.elapsed();
    ensure!(waited > Duration::from_millis(2500), "it waited for {waited:?}");
    host.toolstack().forget(&device)?;
    // The backoff is six seconds now. The device goes before its end.
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
fn release_skips_disconnect_of_a_plugin_in_backoff() -> Result<()> {
    const NAME: &str = "spin-in-disconnect";
    let mut host = host_with(NAME, "first = \"1h\"\nlongest = \"1h\"")?;
    let baseline = host.baseline()?;
    let mut devices = Vec::new();
    for index in 0..3 {
        let (device, nodes) = device_for(&host, &guest(NAME), 3, index)?;
        host.attach(&device, &nodes)?;
        host.expect_status(&device, "connected")?;
        devices.push(device);
    }
    let began = Instant::now();
    host.detach(&devices[0])?;
    ensure!(began.elapsed() >= DEADLINE, "it did not spin");
    for device in &devices[1..] {
        host.detach(device)?;
    }
    let log = host.daemon().context("it runs")?.log();
    assert_eq!(log.matches("plugin failed to disconnect").count(), 1, "{log}");
    host.end_guest(3, &[])?;
    baseline.assert_same(&host)
}
