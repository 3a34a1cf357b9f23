//! Disks that tapdisk serves, with a fake program for tap-ctl whose tapdisk is an idle process.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    harness::{Answer, Device, Disk, Helper, TestHost, handlers},
    loud::say,
};

use super::{host_with, kill_in_the_middle, until};

struct Tapdisks {
    tap_ctl: Helper,
    host: TestHost,
}

impl Tapdisks {
    fn new() -> Result<Self> {
        say("NOTE: tap-ctl is a fake that keeps its disks; its calls are checked, and no block is read");
        let mut tap_ctl = None;
        let host = host_with(|host, helpers| {
            tap_ctl = Some(Helper::tap_ctl(helpers)?);
            Ok(handlers::block_tap(helpers, &host.images()))
        })?;
        let tap_ctl = tap_ctl.context("the table was made")?;
        Ok(Self { tap_ctl, host })
    }

    /// Attaches a guest's disk on an image.
    fn attach(&mut self, disk: &Device, image: &str, mode: &str) -> Result<Answer> {
        let params = format!("aio:{}", self.host.images().join(image).display());
        let nodes = Disk::on(Path::new(&params)).with("mode", mode);
        self.host
            .plug(disk, &nodes.with("script", "/etc/xen/scripts/block-tap"))
    }

    fn node(&self, disk: &Device, name: &str) -> Result<String> {
        let node = self.host.node(disk, name)?;
        node.with_context(|| format!("there is no {name}"))
    }

    /// Returns the numbers that are allocated, attached and open.
    fn state(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(self.tap_ctl.file("."))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.retain(|name| name.ends_with(|sign: char| sign.is_ascii_digit()));
        names.sort();
        Ok(names)
    }
}

const A: Device = Device::tap(3, 0);
const B: Device = Device::tap(4, 0);

fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

#[test]
fn tapdisk_serves_an_image_and_ends_with_its_device() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    let baseline = tap.host.baseline()?;
    let image = tap.host.image("a.img", 4)?.canonicalize()?.display().to_string();
    tap.attach(&A, "a.img", "w")?.done()?;
    tap.host.expect_connected(&A)?;
    let pid = tap.node(&A, "pid")?;
    assert_eq!(tap.node(&A, "minor")?, "0");
    assert_eq!(
        tap.node(&A, "physical-device-path")?,
        format!("/run/blktap-control/nbd{pid}.0")
    );
    assert!(tap.node(&A, "physical-device").is_err(), "tapback takes the path");
    ensure!(runs(&pid), "tapdisk has ended");
    assert_eq!(tap.state()?, ["attached0", "minor0", "open0"]);

    // Another guest is refused as long as this one writes.
    tap.attach(&B, "a.img", "r")?
        .says("failed", &["block-tap", "used by domain 3"])?;
    assert_eq!(tap.node(&B, "hotplug-status")?, "busy");
    tap.host.end_guest_of_dom0(4, &[B])?;

    tap.host.end_guest_of_dom0(3, &[A])?;
    assert_eq!(tap.state()?, [""; 0]);
    until("tapdisk ends", || Ok(!runs(&pid)))?;
    assert_eq!(
        tap.tap_ctl.calls(),
        [
            "list".to_owned(),
            "allocate".to_owned(),
            "spawn".to_owned(),
            format!("attach -p {pid} -m 0"),
            format!("open -p {pid} -m 0 -a aio:{image}"),
            format!("close -p {pid} -m 0"),
            format!("detach -p {pid} -m 0"),
            "free -m 0".to_owned(),
        ]
    );
    fs::remove_file(image)?;
    baseline.assert_same(&tap.host)
}

#[test]
fn shared_tapdisk_ends_with_its_last_user_also_after_a_crash() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.host.image("a.img", 4)?;
    for crash in [false, true] {
        tap.attach(&A, "a.img", "r")?.done()?;
        tap.attach(&B, "a.img", "r")?.done()?;
        let pid = tap.node(&A, "pid")?;
        assert_eq!(
            (tap.node(&B, "pid")?, tap.node(&B, "minor")?),
            (pid.clone(), "0".into())
        );
        if crash {
            tap.host.daemon_mut()?.kill()?;
            tap.host.daemon_mut()?.restart()?;
        }
        // The disk that started tapdisk goes first.
        tap.host.unplug(&A)?.done()?;
        assert_eq!(tap.state()?, ["attached0", "minor0", "open0"], "crash: {crash}");
        ensure!(runs(&pid), "tapdisk has ended");
        tap.host.unplug(&B)?.done()?;
        assert_eq!(tap.state()?, [""; 0], "crash: {crash}");
    }
    tap.host.toolstack().bury(4)?;
    tap.host.toolstack().bury(3)
}

#[test]
fn concurrent_disks_of_one_vm_share_one_tapdisk() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    let image = tap.host.image("a.img", 4)?;
    fs::write(tap.tap_ctl.file("hesitant"), "")?;
    let disks = [A, Device::tap(3, 1)];
    let nodes = Disk::on(Path::new(&format!("aio:{}", image.display())));
    let nodes = nodes.with("script", "/etc/xen/scripts/block-tap");
    for disk in &disks {
        tap.host.attach(disk, &nodes)?;
    }
    let calls = disks.each_ref().map(|disk| tap.host.call(disk, "add"));
    for call in calls {
        call?.answer()?.done()?;
    }
    assert_eq!(tap.node(&disks[0], "pid")?, tap.node(&disks[1], "pid")?);
    assert_eq!(tap.state()?, ["attached0", "minor0", "open0"]);
    tap.host.end_guest_of_dom0(3, &disks)?;
    assert_eq!(tap.state()?, [""; 0]);
    Ok(())
}

#[test]
fn daemon_killed_during_tap_allocation_frees_the_minor() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.host.image("a.img", 4)?;
    // The number of a foreign tapdisk stays allocated.
    fs::write(tap.tap_ctl.file("minor0"), "")?;
    fs::write(tap.tap_ctl.file("slow"), "")?;
    let params = format!("aio:{}/a.img", tap.host.images().display());
    let nodes = Disk::on(Path::new(&params)).with("script", "/etc/xen/scripts/block-tap");
    tap.host.attach(&A, &nodes)?;
    kill_in_the_middle(&mut tap.host, &tap.tap_ctl, &A, "allocate")?;
    assert_eq!(tap.tap_ctl.calls(), ["list", "allocate", "free -m 1"]);
    assert_eq!(tap.state()?, ["minor0"]);
    tap.host.toolstack().forget(&A)?;
    tap.host.toolstack().bury(3)
}

#[test]
fn tap_minor_taken_by_another_process_is_not_freed() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.host.image("a.img", 4)?;
    fs::write(tap.tap_ctl.file("overtaken"), "")?;
    tap.attach(&A, "a.img", "w")?.done()?;
    assert_eq!(tap.node(&A, "minor")?, "1");
    tap.host.end_guest_of_dom0(3, &[A])?;
    assert_eq!(tap.state()?, ["attached0", "minor0"]);
    Ok(())
}

#[test]
fn unreadable_image_leaves_no_tapdisk() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.host.image("a.img", 4)?;
    fs::write(tap.tap_ctl.file("refused"), "")?;
    tap.attach(&A, "a.img", "r")?
        .says("failed", &["block-tap", "-R failed", "Invalid argument"])?;
    assert_eq!(tap.state()?, [""; 0]);
    let calls = tap.tap_ctl.calls();
    let last: Vec<&str> = calls.iter().rev().take(2).map(String::as_str).collect();
    ensure!(last[0] == "free -m 0" && last[1].starts_with("detach"), "{calls:?}");
    tap.host.end_guest_of_dom0(3, &[A])
}

#[test]
fn killed_tapdisk_does_not_block_detach() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.host.image("a.img", 4)?;
    tap.attach(&A, "a.img", "w")?.done()?;
    let pid = tap.node(&A, "pid")?;
    ensure!(Command::new("kill").args(["-9", &pid]).status()?.success());
    until("it is gone", || Ok(!runs(&pid)))?;
    tap.host.end_guest_of_dom0(3, &[A])?;
    assert!(!tap.state()?.contains(&"minor0".to_owned()));
    Ok(())
}

#[test]
fn busy_tap_disk_is_closed_once_it_is_idle() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.host.image("a.img", 4)?;
    tap.attach(&A, "a.img", "w")?.done()?;
    fs::write(tap.tap_ctl.file("stuck"), "")?;
    tap.host.unplug(&A)?.says("failed", &["tap-ctl close", "busy"])?;
    fs::remove_file(tap.tap_ctl.file("stuck"))?;
    until("everything is released", || Ok(tap.state()?.is_empty()))?;
    tap.host.toolstack().bury(3)
}
