//! A file, a link or a bridge that goes while a device is being plugged.

use std::{fs, thread, time::Duration};

use anyhow::{Result, ensure};
use xenplug_tests::{
    harness::{Device, Disk, TestHost, Vif},
    trial::{Length, Trial, length},
};

/// The moments at which something goes, after the device has come.
fn moments() -> impl Iterator<Item = Duration> {
    let rounds: u64 = if length() == Length::Long { 400 } else { 16 };
    (0..rounds).map(move |round| Duration::from_micros(6400 * round / rounds))
}

/// The device is connected, or its error names the cause, before long.
fn settled(machine: &TestHost, device: &Device, words: &[&str]) -> Result<()> {
    let path = format!("{}/hotplug-status", device.backend());
    let told = |status: Option<&str>| matches!(status, Some("connected" | "error"));
    let ended = machine.connect()?.wait(&path, Duration::from_secs(15), told)?;
    ensure!(ended.is_ok(), "it came to {ended:?}\n{}", machine.daemon_log());
    if let Some(error) = machine.node(device, "hotplug-error")? {
        ensure!(words.iter().any(|word| error.contains(word)), "{error:?}");
    }
    Ok(())
}

#[test]
fn image_vanishing_during_attach_is_a_clean_error() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let mut trial = Trial::default();
    for moment in moments() {
        let image = machine.image("goes.img", 1)?;
        let disk = Device::disk(3, 0);
        machine.attach(&disk, &Disk::on(&image))?;
        thread::sleep(moment);
        fs::remove_file(&image)?;
        trial.case(&format!("{moment:?}"), settled(&machine, &disk, &["goes.img"]));
        machine.detach(&disk)?;
    }
    machine.end_guest(3, &[])?;
    baseline.assert_same(&machine)?;
    trial.end()
}

#[test]
fn bridge_vanishing_during_attach_is_a_clean_error() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let mut trial = Trial::default();
    for moment in moments() {
        machine.namespace().bridge("xenbr1")?;
        let card = Device::card(3, 0);
        machine.attach(&card, &Vif::on("xenbr1"))?;
        thread::sleep(moment);
        machine.namespace().ip("link delete xenbr1")?;
        trial.case(&format!("{moment:?}"), settled(&machine, &card, &["xenbr1", "bridge"]));
        machine.detach(&card)?;
    }
    machine.end_guest(3, &[])?;
    baseline.assert_same(&machine)?;
    trial.end()
}

#[test]
fn link_vanishing_during_attach_blocks_no_other_device() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let mut trial = Trial::default();
    for moment in moments() {
        let card = machine.attach_card(3, 0)?;
        machine.expect_state(&card, "2")?;
        thread::sleep(moment);
        // As when the guest crashes, and netback is the first to know; it may not have made the link yet.
        let _ = machine.namespace().ip(&format!("link delete {}", card.guest_link()));
        let good = machine.attach_card(4, 0)?;
        trial.case(&format!("{moment:?}"), machine.expect_connected(&good));
        machine.toolstack().forget(&card)?;
        machine.end_guest(4, &[good])?;
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)?;
    trial.end()
}
