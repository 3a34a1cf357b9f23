//! `xenplug status` and `xenplug watch`.

use std::{
    io::{BufRead, BufReader},
    num::NonZero,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Device, Disk, Terminal, TestHost};

/// Time that an expected output may take.
const TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn status_lists_devices_with_plugin_resources_and_error() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let (good, bad) = (host.attach_disk(3, 0)?, Device::disk(3, 1));
    host.attach(&bad, &Disk::on(&host.images().join("absent.img")))?;
    host.expect_connected(&good)?;
    host.expect_status(&bad, "error")?;

    let status = host.daemon().context("no daemon")?.status()?;
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
    host.end_guest(3, &[good, bad])
}

#[test]
fn watch_restores_the_terminal() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_connected(&disk)?;
    let watch = host.xenplug(&["watch", "--every", "50ms"])?;
    let (rows, columns) = (NonZero::new(16), NonZero::new(100));
    let mut terminal = Terminal::run(&watch, rows.context("no rows")?, columns.context("no columns")?)?;
    let row = |text: &str, words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    let shows = |words: &'static [&str]| move |text: &str| row(text, words);
    terminal.expect("the disk", TIMEOUT, shows(&["vbd/3/51712  phy", "connected"]))?;
    terminal.expect("what it holds", TIMEOUT, shows(&["/dev/loop", "3-0.img"]))?;

    let vif = host.attach_vif(3, 0)?;
    terminal.expect("the vif", TIMEOUT, shows(&["vif/3/0", "vif-bridge", "connected"]))?;
    host.detach(&disk)?;
    let is_gone = |text: &str| row(text, &["vbd/3/51712", "-> -"]) && !row(text, &["vbd/3/51712  phy"]);
    terminal.expect("that the disk has gone", TIMEOUT, is_gone)?;
    // The output stays while nothing else happens.
    thread::sleep(Duration::from_millis(300));
    ensure!(is_gone(&terminal.text()), "{}", terminal.text());
    ensure!(!terminal.is_restored()?, "it is no screen of its own");

    terminal.types("\x03")?;
    let status = terminal.ends(TIMEOUT)?;
    ensure!(status.success(), "{status}");
    terminal.expect("an empty screen", TIMEOUT, |text| !text.contains("vif/3/0"))?;
    ensure!(terminal.is_restored()?, "it is not as it was");
    host.end_guest(3, &[vif])
}

#[test]
fn watch_into_a_pipe_writes_one_line_per_event() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_connected(&disk)?;
    let mut watch = host.xenplug(&["watch", "--every", "20ms"])?;
    let mut watching = watch.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watching.stdout.take().context("no output")?).lines();
    let first = lines.next().context("no line is printed")??;
    ensure!(first.contains("Z vbd/3/51712 - -> connected  phy  "), "{first}");
    host.detach(&disk)?;
    let last = lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with("-> -  phy")));
    last.context("the end of the device is not printed")??;
    watching.kill()?;
    watching.wait()?;
    Ok(())
}
