//! Misbehaving plugins beside good ones in the real daemon: they break only their own device.

mod backoff;
mod compiler;
mod guests;
mod refused;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guests::{DEADLINE, Fate, GUESTS, Grant, Guest, HELPER, SWITCH, beside, guest};
use xenplug_tests::harness::{Device, Disk, LoopPool, Nodes, TestHost, Vif, attached_below, plugins_directory};

/// Time after its deadline within which a plugin's failure has to be published.
const LATE: Duration = Duration::from_secs(2);

/// Time that helpers have to end on request before they are killed.
const HELPER_GRACE: Duration = Duration::from_secs(3);

/// Starts a host whose daemon has these guests beside the good plugins.
fn host_with(guests: impl IntoIterator<Item = Guest>) -> Result<TestHost> {
    let mut host = TestHost::new()?;
    let config = beside(host.config()?, &host.images(), guests);
    host.start_daemon(config)?;
    Ok(host)
}

/// Makes a device for a guest to serve.
fn device_for(host: &TestHost, guest: &Guest, frontend: u16, index: u32) -> Result<(Device, Nodes)> {
    let (device, nodes) = match guest.grant {
        Grant::Bridges => (Device::vif(frontend, index), Vif::on("xenbr0")),
        Grant::Helper => (Device::disk(frontend, index), Disk::on(HELPER.as_ref())),
        Grant::Switch => (Device::disk(frontend, index), Disk::on(SWITCH.as_ref())),
        Grant::Nothing | Grant::Disks => {
            let image = host.image(&format!("hostile-{frontend}-{index}.img"), 4)?;
            (Device::disk(frontend, index), Disk::on(&image))
        }
    };
    Ok((device, nodes.with("script", guest.name)))
}

#[test]
fn every_test_guest_has_a_test() -> Result<()> {
    let built: BTreeSet<String> = fs::read_dir(plugins_directory()?.join("guests"))
        .context("`cargo xtask build` builds the guests")?
        .map(|entry| {
            Ok(entry?
                .file_name()
                .to_string_lossy()
                .trim_end_matches(".wasm")
                .to_owned())
        })
        .collect::<Result<_>>()?;
    let tested: BTreeSet<String> = GUESTS.iter().map(|guest| guest.name.to_owned()).collect();
    assert_eq!(built, tested);
    Ok(())
}

#[test]
fn every_test_guest_is_in_the_reliability_table() -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reliability.md");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let (_, section) = text
        .split_once("## Hostile plugins")
        .context("there is no such section")?;
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let named: BTreeSet<&str> = rows
        .filter_map(|row| row.split(" | ").nth(1))
        .flat_map(|guests| guests.split('`').skip(1).step_by(2))
        .collect();
    let tested: BTreeSet<&str> = GUESTS.iter().map(|guest| guest.name).collect();
    assert_eq!(named, tested);
    Ok(())
}

#[test]
fn misbehaving_plugin_fails_alone_and_its_effects_are_undone() -> Result<()> {
    let _pool = LoopPool::now()?;
    let failing = GUESTS.iter().filter(|guest| matches!(guest.fate, Fate::Fails(_)));
    let mut host = host_with(failing.clone().copied())?;
    // A helper with a child. The test finds both by the number of seconds, which is its own.
    let seconds = format!("60.{:07}", std::process::id());
    program(
        &host.images().join(HELPER),
        &format!("sleep {seconds} & sleep {seconds}"),
    )?;
    // A helper that leaves a process running, which has its output open.
    program(
        &host.images().join(SWITCH),
        &format!("echo $1 >>$0.calls; [ $1 = off ] || sleep {seconds} &"),
    )?;
    let baseline = host.baseline()?;
    for guest in failing {
        let Fate::Fails(words) = guest.fate else { continue };
        fails(&mut host, guest, words)
            .and_then(|()| baseline.assert_same(&host))
            .and_then(|()| no_process(&seconds))
            .with_context(|| guest.name)?;
    }
    no_control_characters(&host.daemon().context("it runs")?.log())
}

/// Writes a program for the shell.
fn program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Checks that one guest's device fails as expected, while another is served.
fn fails(host: &mut TestHost, guest: &Guest, words: &[&str]) -> Result<()> {
    let (device, nodes) = device_for(host, guest, 3, 0)?;
    host.attach(&device, &nodes)?;
    let began = Instant::now();
    let good = host.attach_disk(4, 0)?;
    host.expect_failure(&device, "error", words)?;
    let took = began.elapsed();
    let grace = if matches!(guest.grant, Grant::Helper | Grant::Switch) {
        HELPER_GRACE
    } else {
        Duration::ZERO
    };
    ensure!(took < guest.deadline() + LATE + grace, "it took {took:?}");
    host.expect_connected(&good)?;

    let error = host.node(&device, "hotplug-error")?.context("no hotplug-error")?;
    ensure!(error.starts_with(&format!("{}: ", guest.name)), "{error:?}");
    ensure!(error.len() <= 1000, "{} bytes", error.len());
    no_control_characters(&error)?;
    assert_eq!(host.node(&device, "physical-device")?, None);
    // The resources are released when the failure is published, and not when the device goes.
    let loops = attached_below(host.directory())?;
    ensure!(loops.len() == 1 && loops[0].backing.ends_with("/4-0.img"), "{loops:?}");
    if let Grant::Bridges = guest.grant {
        assert_eq!(host.namespace().ports("xenbr0")?, [""; 0]);
        let link = host.namespace().link(&device.link())?.context("no link")?;
        assert_eq!(link["mtu"], 1500);
        ensure!(
            link["address"] != "fe:ff:ff:ff:ff:ff" && !link["flags"].to_string().contains("\"UP\""),
            "{link}"
        );
    }
    if let Grant::Switch = guest.grant {
        assert_eq!(
            fs::read_to_string(host.images().join("switch.calls"))?,
            "on\noff\n",
            "how it was called"
        );
    }
    host.toolstack().forget(&device)?;
    host.toolstack().bury(3)?;
    host.end_guest(4, &[good])
}

/// Checks that no process has this word on its command line.
fn no_process(word: &str) -> Result<()> {
    for entry in fs::read_dir("/proc")? {
        let line = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        ensure!(!line.split('\0').any(|found| found == word), "{line:?} runs");
    }
    Ok(())
}

/// Checks that a text has no control character, and none that reverses text in a terminal.
fn no_control_characters(text: &str) -> Result<()> {
    let found = text
        .chars()
        .find(|c| c.is_control() && *c != '\n' || ('\u{202a}'..='\u{202e}').contains(c));
    ensure!(found.is_none(), "{found:?} in {text:?}");
    Ok(())
}

#[test]
fn spinning_plugin_blocks_nobody_and_stops_with_its_device() -> Result<()> {
    let spinning = guest("spin-in-connect");
    let mut host = TestHost::new()?;
    let config = beside(host.config()?, &host.images(), [spinning])
        .replacing(&format!("deadline = \"{DEADLINE:?}\""), "deadline = \"60s\"");
    host.start_daemon(config)?;
    let baseline = host.baseline()?;
    let mut devices = Vec::new();
    for index in 0..4 {
        let (device, nodes) = device_for(&host, &spinning, 3, index)?;
        host.attach(&device, &nodes)?;
        devices.push(device);
    }
    for _ in 0..3 {
        let good = [host.attach_disk(4, 0)?, host.attach_vif(4, 0)?];
        for device in &good {
            host.expect_connected(device)?;
        }
        host.end_guest(4, &good)?;
    }
    for device in &devices {
        assert_eq!(host.node(device, "hotplug-status")?, None, "it is still at it");
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn exhausted_instance_pool_recovers_and_others_are_served() -> Result<()> {
    let spinning = guest("spin-in-connect");
    let mut host = host_with([spinning])?;
    let baseline = host.baseline()?;
    let mut devices = Vec::new();
    for index in 0..40 {
        let (device, nodes) = device_for(&host, &spinning, 3, index)?;
        host.attach(&device, &nodes)?;
        devices.push(device);
    }
    let good = host.attach_disk(4, 0)?;
    host.expect_connected(&good)?;
    for device in &devices {
        host.expect_failure(device, "error", &["spin-in-connect", "deadline"])?;
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)?;
    host.end_guest(4, &[good])?;
    baseline.assert_same(&host)
}

#[test]
fn connecting_plugin_is_kept_within_its_limits() -> Result<()> {
    let mut host = host_with(
        GUESTS
            .iter()
            .filter(|guest| matches!(guest.fate, Fate::Connects))
            .copied(),
    )?;
    let baseline = host.baseline()?;

    let mut devices = Vec::new();
    for index in 0..3 {
        devices.push(connect(&mut host, "remembers", index)?);
        assert_eq!(
            host.node(&devices[index as usize], "calls")?.as_deref(),
            Some("1"),
            "it remembers"
        );
    }

    devices.push(connect(&mut host, "control-characters-in-log", 3)?);
    let log = host.daemon().context("it runs")?.log();
    ensure!(
        log.lines()
            .any(|line| line.contains("all is lost ERROR xenplugd: the store is gone")),
        "a forged line, or none: {log}"
    );

    devices.push(connect(&mut host, "log-flood", 4)?);
    let log = host.daemon().context("it runs")?.log();
    let flood: Vec<&str> = log.lines().filter(|line| line.contains("flood flood")).collect();
    assert_eq!(flood.len(), 64, "lines of an event");
    ensure!(flood.iter().all(|line| line.len() < 1024 + 256), "a long line");
    ensure!(
        log.contains(&format!("dropped={}", 100_000 - 64)),
        "what was dropped is not logged"
    );

    devices.push(connect(&mut host, "denied", 5)?);
    let log = host.daemon().context("it runs")?.log();
    for what in ["/etc/shadow", "/dev/mem", "/proc/self/environ"] {
        let audited = log
            .lines()
            .any(|line| line.contains("denied plugin=") && line.contains("device=vbd/3/") && line.contains(what));
        ensure!(audited, "{what} is not logged: {log}");
    }

    for (name, index) in [("spin-in-disconnect", 6), ("trap-in-disconnect", 7)] {
        let device = connect(&mut host, name, index)?;
        host.detach(&device)?;
        let log = host.daemon().context("it runs")?.log();
        let logged = log
            .lines()
            .any(|line| line.contains(name) && line.contains("plugin failed to disconnect"));
        ensure!(logged, "{name} is not logged: {log}");
    }
    host.end_guest(3, &devices)?;
    baseline.assert_same(&host)?;
    no_control_characters(&host.daemon().context("it runs")?.log())?;
    is_idle(&mut host)
}

#[test]
fn plugin_memory_is_cleared_before_reuse() -> Result<()> {
    let mut host = host_with(["leaves-marks", "finds-marks"].map(guest))?;
    let baseline = host.baseline()?;
    // At once, so that they use several slots of the pool, more than it keeps warm.
    let marking: Vec<Device> = (0..8)
        .map(|index| {
            let (device, nodes) = device_for(&host, &guest("leaves-marks"), 3, index)?;
            host.attach(&device, &nodes)?;
            Ok(device)
        })
        .collect::<Result<_>>()?;
    for device in &marking {
        host.expect_failure(device, "error", &["leaves-marks", "crashed"])?;
    }
    let mut finding = Vec::new();
    for index in 8..24 {
        let (device, nodes) = device_for(&host, &guest("finds-marks"), 4, index)?;
        host.attach(&device, &nodes)?;
        finding.push(device);
    }
    for device in &finding {
        host.expect_status(device, "connected")?;
    }
    for device in &marking {
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)?;
    host.end_guest(4, &finding)?;
    baseline.assert_same(&host)
}

#[test]
fn plugin_flooding_the_log_is_rate_limited_and_reported() -> Result<()> {
    const EVENTS: u32 = 5;
    let mut host = TestHost::new()?;
    let config = beside(host.config()?, &host.images(), [guest("log-flood")]);
    host.start_daemon(config.replacing("calls = 200000", "calls = 200000\nlog-lines = 1000"))?;
    let devices: Vec<Device> = (0..EVENTS)
        .map(|event| connect(&mut host, "log-flood", event))
        .collect::<Result<_>>()?;
    let good = host.attach_disk(4, 0)?;
    host.expect_connected(&good)?;
    let log = |host: &TestHost| Ok::<_, anyhow::Error>(host.daemon().context("it runs")?.log());
    let until = Instant::now() + Duration::from_secs(20);
    while !log(&host)?.contains("the rate limit of the log left out") {
        ensure!(Instant::now() < until, "the log does not mention what was left out");
        thread::sleep(Duration::from_millis(100));
    }
    let log = log(&host)?;
    let lines = log.lines().filter(|line| line.contains("flood flood")).count();
    ensure!(lines <= 2 * 2000, "{lines} lines of {}", 1000 * EVENTS);
    ensure!(
        log.contains("device=vbd/4/51712 plugin=\"phy\""),
        "the others' lines are missing: {log}"
    );
    host.end_guest(3, &devices)?;
    host.end_guest(4, &[good])
}

/// Checks that the daemon without devices is idle and ends on request.
fn is_idle(host: &mut TestHost) -> Result<()> {
    let daemon = host.daemon_mut()?;
    // One tick is 10 ms.
    let ticks = daemon.processor_ticks()?;
    thread::sleep(Duration::from_millis(500));
    let used = daemon.processor_ticks()? - ticks;
    ensure!(used <= 2, "{used} of 50 ticks were used\n{}", daemon.log());
    let status = daemon.terminate()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Connects a device of the guest with this name.
fn connect(host: &mut TestHost, name: &str, index: u32) -> Result<Device> {
    let (device, nodes) = device_for(host, &guest(name), 3, index)?;
    host.attach(&device, &nodes)?;
    host.expect_status(&device, "connected")?;
    Ok(device)
}
