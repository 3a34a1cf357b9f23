//! Files, links and bridges that vanish during an attach.

use std::{fs, thread, time::Duration};

use anyhow::{Result, ensure};
use xenplug_tests::{
    cases::{Cases, Length, length},
    harness::{Device, Disk, TestHost, Vif},
};

/// Delays after the attach at which something vanishes.
fn delays() -> impl Iterator<Item = Duration> {
    let rounds: u64 = if length() == Length::Long { 400 } else { 16 };
    (0..rounds).map(move |round| Duration::from_micros(6400 * round / rounds))
}

/// Waits until the device is connected or its error names the cause.
fn settled(host: &TestHost, device: &Device, words: &[&str]) -> Result<()> {
    let path = format!("{}/hotplug-status", device.backend());
    let is_final = |status: Option<&str>| matches!(status, Some("connected" | "error"));
    let ended = host.connect()?.wait(&path, Duration::from_secs(15), is_final)?;
    ensure!(ended.is_ok(), "it came to {ended:?}\n{}", host.daemon_log());
    if let Some(error) = host.node(device, "hotplug-error")? {
        ensure!(words.iter().any(|word| error.contains(word)), "{error:?}");
    }
    Ok(())
}

#[test]
fn image_vanishing_during_attach_is_a_clean_error() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let mut cases = Cases::default();
    for delay in delays() {
        let image = host.image("goes.img", 1)?;
        let disk = Device::disk(3, 0);
        host.attach(&disk, &Disk::on(&image))?;
        thread::sleep(delay);
        fs::remove_file(&image)?;
        cases.case(&format!("{delay:?}"), settled(&host, &disk, &["goes.img"]));
        host.detach(&disk)?;
    }
    host.end_guest(3, &[])?;
    baseline.assert_same(&host)?;
    cases.end()
}

#[test]
fn bridge_vanishing_during_attach_is_a_clean_error() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let mut cases = Cases::default();
    for delay in delays() {
        host.namespace().bridge("xenbr1")?;
        let vif = Device::vif(3, 0);
        host.attach(&vif, &Vif::on("xenbr1"))?;
        thread::sleep(delay);
        host.namespace().ip("link delete xenbr1")?;
        cases.case(&format!("{delay:?}"), settled(&host, &vif, &["xenbr1", "bridge"]));
        host.detach(&vif)?;
    }
    host.end_guest(3, &[])?;
    baseline.assert_same(&host)?;
    cases.end()
}

#[test]
fn link_vanishing_during_attach_blocks_no_other_device() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let mut cases = Cases::default();
    for delay in delays() {
        let vif = host.attach_vif(3, 0)?;
        host.expect_state(&vif, "2")?;
        thread::sleep(delay);
        // As when the guest crashes and netback notices first. The link may not exist yet.
        let _ = host.namespace().ip(&format!("link delete {}", vif.guest_link()));
        let good = host.attach_vif(4, 0)?;
        cases.case(&format!("{delay:?}"), host.expect_connected(&good));
        host.toolstack().forget(&vif)?;
        host.end_guest(4, &[good])?;
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)?;
    cases.end()
}
