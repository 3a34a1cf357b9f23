//! What is not served is told, in the driver domain's own words.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{loud::say, store::Store};

use crate::stage::Stage;

/// Both sides look at least every five seconds (docs/hotplug-protocol.md): what is told sooner is told by events.
const SOON: Duration = Duration::from_secs(4);

#[test]
fn request_failure_reports_its_cause_and_leaves_nothing() -> Result<()> {
    let stage = Stage::new()?;
    let baseline = stage.machine.baseline()?;
    let absent = stage.machine.images().join("absent.img");
    let disk = stage
        .disk("a.img")?
        .saying(&format!("format=raw,vdev=xvda,access=rw,target={}", absent.display()));
    let card = stage.card().saying("bridge=xenbr77,devid=0");
    for (asked, words) in [(disk, ["phy: ", "absent.img"]), (card, ["vif-bridge: ", "xenbr77"])] {
        let began = Instant::now();
        let said = stage.fails("attach", &asked, 1)?;
        let took = began.elapsed();
        ensure!(took < SOON, "it took {took:?}");
        for word in words {
            ensure!(said.contains(word), "{said}");
        }
        assert_eq!(stage.state(&asked)?, None);
    }
    baseline.assert_same(&stage.machine)
}

#[test]
fn request_failure_is_reported_within_a_second() -> Result<()> {
    let stage = Stage::new()?;
    let absent = stage.machine.images().join("absent.img");
    let spec = format!("format=raw,vdev=xvda,access=rw,target={}", absent.display());
    let disk = stage.disk("a.img")?.saying(&spec);
    let error = format!("{}/error", disk.request());
    let mut took = Vec::new();
    // Who does not get to read the word before it is removed has missed its moment.
    for _ in 0..30 {
        let mut watcher = stage.machine.connect()?;
        watcher.watch(&error, "w")?;
        let attaching = stage.spawn("attach", &disk, &["--wait", "--timeout", "60s"])?;
        let said = word(&mut watcher, &error)?;
        let began = Instant::now();
        let done = attaching.wait_with_output()?;
        assert_eq!(done.status.code(), Some(1));
        let Some(said) = said else { continue };
        took.push(began.elapsed());
        // As it is, after how far the device came.
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(told.lines().last(), Some(&*format!("xenplug: {said}")), "{told}");
        if took.len() == 10 {
            break;
        }
    }
    took.sort();
    let median = took.get(took.len() / 2).context("every word was missed")?;
    let times = took.len();
    say(&format!(
        "from the word to the end, {times} times: median {median:?}, all {took:?}"
    ));
    ensure!(*median < Duration::from_secs(1), "{took:?}");
    Ok(())
}

/// Waits for the driver domain's word, and gives it if it is there still.
fn word(watcher: &mut Store, error: &str) -> Result<Option<String>> {
    let mut asked = false;
    loop {
        watcher.event(SOON)?.context("no word comes")?;
        match watcher.find(error)? {
            Some(said) if !said.is_empty() => return Ok(Some(said)),
            Some(_) => asked = true,
            None if asked => return Ok(None),
            None => {}
        }
    }
}

#[test]
fn malformed_request_is_refused_with_its_cause() -> Result<()> {
    let mut stage = Stage::new()?;
    let disk = stage.disk("a.img")?;
    stage.machine.daemon_mut()?.kill()?;
    for (node, value, why) in [
        ("version", "2", "version: \"2\" is not 1"),
        ("kind", "vif", "kind: \"vif\" does not serve a vbd"),
        ("hotplug-status", "connected", "hotplug-status: is not for a request"),
        ("Params", "x", "Params: is no name of a node"),
    ] {
        ensure!(stage.run("attach", &disk, &[])?.status.success(), "not asked");
        let mut store = stage.machine.connect()?;
        store.write(&format!("{}/{node}", disk.request()), value)?;
        stage.machine.daemon_mut()?.restart()?;
        stage.expect(&disk, "6")?;
        let error = store.read(&format!("{}/error", disk.request()))?;
        ensure!(error.contains(why), "{error}");
        assert_eq!(store.find(&disk.device.backend())?, None);
        stage.detach(&disk)?;
        stage.machine.daemon_mut()?.kill()?;
    }
    Ok(())
}

#[test]
fn concurrent_attaches_of_one_device_have_one_winner() -> Result<()> {
    let stage = Stage::new()?;
    let disk = stage.disk("a.img")?;
    let both = [
        stage.spawn("attach", &disk, &["--wait", "--timeout", "60s"])?,
        stage.spawn("attach", &disk, &["--wait", "--timeout", "60s"])?,
    ];
    let mut ends = Vec::new();
    for one in both {
        let done = one.wait_with_output()?;
        ends.push((done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned()));
    }
    ends.sort();
    assert_eq!((ends[0].0, ends[1].0), (Some(0), Some(1)), "{ends:?}");
    ensure!(ends[1].1.contains("is there already"), "{ends:?}");
    stage.detach(&disk)
}

#[test]
fn driver_domain_cannot_exceed_libxls_permissions() -> Result<()> {
    let mut stage = Stage::new()?;
    let disk = stage.disk("a.img")?;
    stage.attach(&disk)?;
    stage.machine.daemon_mut()?.terminate()?;
    let mut own = Store::connect(&stage.machine.store())?;
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
    stage.machine.daemon_mut()?.restart()?;
    stage.detach(&disk)
}
