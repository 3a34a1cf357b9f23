//! What ends early: patience, guests, and who does not let go.

use anyhow::{Result, ensure};
use xenplug_tests::harness::attached_below;

use crate::stage::Stage;

#[test]
fn attach_past_its_deadline_reports_it_and_leaves_nothing() -> Result<()> {
    let mut stage = Stage::new()?;
    let baseline = stage.machine.baseline()?;
    let disk = stage.disk("a.img")?;
    // The backend stays in state 1, and no handler runs.
    stage.machine.stop_kernel();
    let done = stage.run("attach", &disk, &["--wait", "--timeout", "500ms", "--json"])?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(3), "{said}");
    ensure!(said.contains("being set up"), "{said}");
    let answer: serde_json::Value = serde_json::from_slice(&done.stdout)?;
    assert_eq!(answer["timeout"], true);
    // The request stays at 6 until somebody attaches or detaches there.
    stage.expect(&disk, "6")?;
    stage.detach(&disk)?;
    baseline.assert_same(&stage.machine)
}

#[test]
fn detach_waits_for_the_guest_unless_forced() -> Result<()> {
    let mut stage = Stage::new()?;
    let baseline = stage.machine.baseline()?;
    let disk = stage.disk("a.img")?;
    stage.attach(&disk)?;
    stage.expect(&disk, "4")?;
    stage.machine.stop_kernel();
    let done = stage.run("detach", &disk, &["--wait", "--timeout", "500ms"])?;
    assert_eq!(done.status.code(), Some(3));
    assert_eq!(stage.state(&disk)?.as_deref(), Some("5"));
    assert_eq!(attached_below(stage.machine.directory())?.len(), 1);
    let done = stage.run("detach", &disk, &["--force", "--wait", "--timeout", "60s"])?;
    ensure!(done.status.success(), "{done:?}");
    assert_eq!(attached_below(stage.machine.directory())?, []);
    baseline.assert_same(&stage.machine)
}

#[test]
fn dead_guest_ends_its_requests_and_its_domid_is_reusable() -> Result<()> {
    let mut stage = Stage::new()?;
    let baseline = stage.machine.baseline()?;
    let (disk, card) = (stage.disk("a.img")?, stage.card());
    for asked in [&disk, &card] {
        stage.attach(asked)?;
        stage.expect(asked, "4")?;
    }
    stage.machine.xenstored().kill_domain(3)?;
    stage.machine.toolstack().bury(3)?;
    for asked in [&disk, &card] {
        stage.expect(asked, "6")?;
        let error = stage.machine.connect()?.read(&format!("{}/error", asked.request()))?;
        ensure!(error.contains("the guest has gone"), "{error}");
    }
    assert_eq!(attached_below(stage.machine.directory())?, []);
    // The next guest of that number.
    stage.machine.xenstored().revive_domain(3)?;
    stage.machine.toolstack().build(3)?;
    stage.attach(&disk)?;
    stage.detach(&disk)?;
    let said = stage.fails("detach", &disk, 1)?;
    ensure!(said.contains("there is no"), "{said}");
    stage.detach(&card)?;
    baseline.assert_same(&stage.machine)
}

#[test]
fn request_removed_during_downtime_is_released_at_start() -> Result<()> {
    let mut stage = Stage::new()?;
    let baseline = stage.machine.baseline()?;
    let disk = stage.disk("a.img")?;
    stage.attach(&disk)?;
    stage.expect(&disk, "4")?;
    stage.machine.daemon_mut()?.kill()?;
    stage.machine.connect()?.remove(&disk.request())?;
    stage.machine.daemon_mut()?.restart()?;
    baseline.assert_same(&stage.machine)
}

#[test]
fn watch_reports_each_change_of_a_device() -> Result<()> {
    let stage = Stage::new()?;
    let disk = stage.disk("a.img")?;
    let mut watching = stage
        .machine
        .xenplug(&["watch", "--json", "--every", "10ms"])?
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    stage.attach(&disk)?;
    // Both were seen when it is told that it went.
    let told = std::io::BufReader::new(watching.stdout.take().ok_or_else(|| anyhow::anyhow!("no output"))?);
    let mut states = Vec::new();
    for line in std::io::BufRead::lines(told) {
        let event: serde_json::Value = serde_json::from_str(&line?)?;
        assert_eq!(event["device"]["kind"], "vbd");
        states.push(event["to"].clone());
        if event["to"] == "connected" {
            stage.detach(&disk)?;
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
