//! Requests that fail report the driver domain's message.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{loud::say, store::Store};

use crate::fixture::Fixture;

/// Time that is shorter than the five seconds between reads (docs/hotplug-protocol.md), so that an event was the cause.
const SOON: Duration = Duration::from_secs(4);

#[test]
fn request_failure_reports_its_cause_and_leaves_nothing() -> Result<()> {
    let fixture = Fixture::new()?;
    let baseline = fixture.host.baseline()?;
    let absent = fixture.host.images().join("absent.img");
    let disk = fixture
        .disk("a.img")?
        .with_spec(&format!("format=raw,vdev=xvda,access=rw,target={}", absent.display()));
    let vif = fixture.vif().with_spec("bridge=xenbr77,devid=0");
    for (requested, words) in [(disk, ["phy: ", "absent.img"]), (vif, ["vif-bridge: ", "xenbr77"])] {
        let began = Instant::now();
        let message = fixture.fails("attach", &requested, 1)?;
        let took = began.elapsed();
        ensure!(took < SOON, "it took {took:?}");
        for word in words {
            ensure!(message.contains(word), "{message}");
        }
        assert_eq!(fixture.state(&requested)?, None);
    }
    baseline.assert_same(&fixture.host)
}

#[test]
fn request_failure_is_reported_within_a_second() -> Result<()> {
    let fixture = Fixture::new()?;
    let absent = fixture.host.images().join("absent.img");
    let spec = format!("format=raw,vdev=xvda,access=rw,target={}", absent.display());
    let disk = fixture.disk("a.img")?.with_spec(&spec);
    let error = format!("{}/error", disk.request());
    let mut took = Vec::new();
    // The status may be removed before it is read.
    for _ in 0..30 {
        let mut watcher = fixture.host.connect()?;
        watcher.watch(&error, "w")?;
        let attaching = fixture.spawn("attach", &disk, &["--wait", "--timeout", "60s"])?;
        let message = error_message(&mut watcher, &error)?;
        let began = Instant::now();
        let done = attaching.wait_with_output()?;
        assert_eq!(done.status.code(), Some(1));
        let Some(message) = message else { continue };
        took.push(began.elapsed());
        // The driver domain's message, after the progress of the device.
        let output = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(output.lines().last(), Some(&*format!("xenplug: {message}")), "{output}");
        if took.len() == 10 {
            break;
        }
    }
    took.sort();
    let median = took.get(took.len() / 2).context("every error was missed")?;
    let times = took.len();
    say(&format!(
        "from the error to the end, {times} times: median {median:?}, all {took:?}"
    ));
    ensure!(*median < Duration::from_secs(1), "{took:?}");
    Ok(())
}

/// Waits for the driver domain's error, and returns it if it still exists.
fn error_message(watcher: &mut Store, error: &str) -> Result<Option<String>> {
    let mut requested = false;
    loop {
        watcher.event(SOON)?.context("no error comes")?;
        match watcher.find(error)? {
            Some(message) if !message.is_empty() => return Ok(Some(message)),
            Some(_) => requested = true,
            None if requested => return Ok(None),
            None => {}
        }
    }
}

#[test]
fn malformed_request_is_refused_with_its_cause() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let disk = fixture.disk("a.img")?;
    fixture.host.daemon_mut()?.kill()?;
    for (node, value, why) in [
        ("version", "2", "version: \"2\" is not 1"),
        ("kind", "vif", "kind: \"vif\" does not serve a vbd"),
        ("hotplug-status", "connected", "hotplug-status: a request cannot set it"),
        ("Params", "x", "Params: is not a node name"),
    ] {
        ensure!(fixture.run("attach", &disk, &[])?.status.success(), "not asked");
        let mut store = fixture.host.connect()?;
        store.write(&format!("{}/{node}", disk.request()), value)?;
        fixture.host.daemon_mut()?.restart()?;
        fixture.expect(&disk, "6")?;
        let error = store.read(&format!("{}/error", disk.request()))?;
        ensure!(error.contains(why), "{error}");
        assert_eq!(store.find(&disk.device.backend())?, None);
        fixture.detach(&disk)?;
        fixture.host.daemon_mut()?.kill()?;
    }
    Ok(())
}

#[test]
fn concurrent_attaches_of_one_device_have_one_winner() -> Result<()> {
    let fixture = Fixture::new()?;
    let disk = fixture.disk("a.img")?;
    let both = [
        fixture.spawn("attach", &disk, &["--wait", "--timeout", "60s"])?,
        fixture.spawn("attach", &disk, &["--wait", "--timeout", "60s"])?,
    ];
    let mut outcomes = Vec::new();
    for one in both {
        let done = one.wait_with_output()?;
        outcomes.push((done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned()));
    }
    outcomes.sort();
    assert_eq!((outcomes[0].0, outcomes[1].0), (Some(0), Some(1)), "{outcomes:?}");
    ensure!(outcomes[1].1.contains("is there already"), "{outcomes:?}");
    fixture.detach(&disk)
}

#[test]
fn driver_domain_cannot_exceed_libxls_permissions() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let disk = fixture.disk("a.img")?;
    fixture.attach(&disk)?;
    fixture.host.daemon_mut()?.terminate()?;
    let mut own = Store::connect(&fixture.host.store())?;
    assert_eq!(own.read("domid")?, "1");
    for node in [
        "/local/domain/3/device/vbd/51728/state",
        "/local/domain/3/vm",
        "/local/domain/0/backend/vbd/3/51712/state",
        &format!("{}/params", disk.request()),
        &format!("{}/more", disk.request()),
    ] {
        let written = own.write(node, "x");
        ensure!(written.is_err_and(|error| error.is("EACCES")), "{node} was written");
    }
    own.write(&format!("{}/state", disk.request()), "4")?;
    drop(own);
    fixture.host.daemon_mut()?.restart()?;
    fixture.detach(&disk)
}
