//! Attaches after their deadline, dead guests, and detaches that wait for a user of the disk.

use anyhow::{Result, ensure};
use xenplug_tests::harness::attached_below;

use crate::fixture::Fixture;

#[test]
fn attach_past_its_deadline_reports_it_and_leaves_nothing() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let baseline = fixture.host.baseline()?;
    let disk = fixture.disk("a.img")?;
    // The backend stays in state 1, and no handler runs.
    fixture.host.stop_kernel();
    let done = fixture.run("attach", &disk, &["--wait", "--timeout", "500ms", "--json"])?;
    let message = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(3), "{message}");
    ensure!(message.contains("being set up"), "{message}");
    let answer: serde_json::Value = serde_json::from_slice(&done.stdout)?;
    assert_eq!(answer["timeout"], true);
    // The request stays at 6 until a toolstack attaches or detaches the device.
    fixture.expect(&disk, "6")?;
    fixture.detach(&disk)?;
    baseline.assert_same(&fixture.host)
}

#[test]
fn detach_waits_for_the_guest_unless_forced() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let baseline = fixture.host.baseline()?;
    let disk = fixture.disk("a.img")?;
    fixture.attach(&disk)?;
    fixture.expect(&disk, "4")?;
    fixture.host.stop_kernel();
    let done = fixture.run("detach", &disk, &["--wait", "--timeout", "500ms"])?;
    assert_eq!(done.status.code(), Some(3));
    assert_eq!(fixture.state(&disk)?.as_deref(), Some("5"));
    assert_eq!(attached_below(fixture.host.directory())?.len(), 1);
    let done = fixture.run("detach", &disk, &["--force", "--wait", "--timeout", "60s"])?;
    ensure!(done.status.success(), "{done:?}");
    assert_eq!(attached_below(fixture.host.directory())?, []);
    baseline.assert_same(&fixture.host)
}

#[test]
fn dead_guest_ends_its_requests_and_its_domid_is_reusable() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let baseline = fixture.host.baseline()?;
    let (disk, vif) = (fixture.disk("a.img")?, fixture.vif());
    for requested in [&disk, &vif] {
        fixture.attach(requested)?;
        fixture.expect(requested, "4")?;
    }
    fixture.host.xenstored().kill_domain(3)?;
    fixture.host.toolstack().bury(3)?;
    for requested in [&disk, &vif] {
        fixture.expect(requested, "6")?;
        let error = fixture
            .host
            .connect()?
            .read(&format!("{}/error", requested.request()))?;
        ensure!(error.contains("the guest has gone"), "{error}");
    }
    assert_eq!(attached_below(fixture.host.directory())?, []);
    // The next guest with that domain id.
    fixture.host.xenstored().revive_domain(3)?;
    fixture.host.toolstack().build(3)?;
    fixture.attach(&disk)?;
    fixture.detach(&disk)?;
    let message = fixture.fails("detach", &disk, 1)?;
    ensure!(message.contains("there is no"), "{message}");
    fixture.detach(&vif)?;
    baseline.assert_same(&fixture.host)
}

#[test]
fn request_removed_during_downtime_is_released_at_start() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let baseline = fixture.host.baseline()?;
    let disk = fixture.disk("a.img")?;
    fixture.attach(&disk)?;
    fixture.expect(&disk, "4")?;
    fixture.host.daemon_mut()?.kill()?;
    fixture.host.connect()?.remove(&disk.request())?;
    fixture.host.daemon_mut()?.restart()?;
    baseline.assert_same(&fixture.host)
}

#[test]
fn watch_reports_each_change_of_a_device() -> Result<()> {
    let fixture = Fixture::new()?;
    let disk = fixture.disk("a.img")?;
    let mut watching = fixture
        .host
        .xenplug(&["watch", "--json", "--every", "10ms"])?
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    fixture.attach(&disk)?;
    // Both states were reported before the end of the device.
    let reports = std::io::BufReader::new(watching.stdout.take().ok_or_else(|| anyhow::anyhow!("no output"))?);
    let mut states = Vec::new();
    for line in std::io::BufRead::lines(reports) {
        let event: serde_json::Value = serde_json::from_str(&line?)?;
        assert_eq!(event["device"]["kind"], "vbd");
        states.push(event["to"].clone());
        if event["to"] == "connected" {
            fixture.detach(&disk)?;
        }
        if event["to"].is_null() {
            break;
        }
    }
    watching.kill()?;
    watching.wait()?;
    ensure!(states.contains(&"connected".into()), "{states:?}");
    Ok(())
}
