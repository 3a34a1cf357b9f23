//! What the daemon says of itself.

use std::{
    io::{BufRead, BufReader},
    num::NonZero,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Device, Disk, Terminal, TestHost};

/// How long what is to be seen may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn status_lists_devices_with_plugin_resources_and_error() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let (good, bad) = (machine.attach_disk(3, 0)?, Device::disk(3, 1));
    machine.attach(&bad, &Disk::on(&machine.images().join("absent.img")))?;
    machine.expect_connected(&good)?;
    machine.expect_status(&bad, "error")?;

    let status = machine.daemon().context("no daemon")?.status()?;
    assert_eq!(
        (status["mode"].as_str(), status["domain"].as_u64()),
        (Some("driver-domain"), Some(0))
    );
    assert_eq!(status["store"]["connected"], true);
    let devices = status["devices"].as_array().context("no list of devices")?;
    let of = |device: &Device| {
        devices
            .iter()
            .find(|one| one["devid"] == device.devid)
            .with_context(|| format!("{device:?} in {status}"))
    };
    assert_eq!(
        (of(&good)?["plugin"].as_str(), of(&good)?["state"].as_str()),
        (Some("phy"), Some("connected"))
    );
    ensure!(of(&good)?["held"].to_string().contains("/dev/loop"), "{status}");
    ensure!(of(&good)?["error"].is_null(), "{status}");
    ensure!(of(&bad)?["error"].to_string().contains("absent.img"), "{status}");
    machine.end_guest(3, &[good, bad])
}

#[test]
fn watch_restores_the_terminal() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_connected(&disk)?;
    let watch = machine.xenplug(&["watch", "--every", "50ms"])?;
    let (rows, columns) = (NonZero::new(16), NonZero::new(100));
    let mut terminal = Terminal::run(&watch, rows.context("no rows")?, columns.context("no columns")?)?;
    let row = |text: &str, words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    let shows = |words: &'static [&str]| move |text: &str| row(text, words);
    terminal.expect("the disk", PATIENCE, shows(&["vbd/3/51712  phy", "connected"]))?;
    terminal.expect("what it holds", PATIENCE, shows(&["/dev/loop", "3-0.img"]))?;

    let card = machine.attach_card(3, 0)?;
    terminal.expect("the card", PATIENCE, shows(&["vif/3/0", "vif-bridge", "connected"]))?;
    machine.detach(&disk)?;
    let told = |text: &str| row(text, &["vbd/3/51712", "-> -"]) && !row(text, &["vbd/3/51712  phy"]);
    terminal.expect("that the disk has gone", PATIENCE, told)?;
    // What was told stays while nothing else happens.
    thread::sleep(Duration::from_millis(300));
    ensure!(told(&terminal.text()), "{}", terminal.text());
    ensure!(!terminal.is_restored()?, "it is no screen of its own");

    terminal.types("\x03")?;
    let status = terminal.ends(PATIENCE)?;
    ensure!(status.success(), "{status}");
    terminal.expect("an empty screen", PATIENCE, |text| !text.contains("vif/3/0"))?;
    ensure!(terminal.is_restored()?, "it is not as it was");
    machine.end_guest(3, &[card])
}

#[test]
fn watch_into_a_pipe_writes_one_line_per_event() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_connected(&disk)?;
    let mut watch = machine.xenplug(&["watch", "--every", "20ms"])?;
    let mut watching = watch.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watching.stdout.take().context("no output")?).lines();
    let first = lines.next().context("nothing is told")??;
    ensure!(first.contains("Z vbd/3/51712 - -> connected  phy  "), "{first}");
    machine.detach(&disk)?;
    let last = lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with("-> -  phy")));
    last.context("it is not told that it went")??;
    watching.kill()?;
    watching.wait()?;
    Ok(())
}
