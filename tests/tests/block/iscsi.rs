//! Disks on iSCSI targets, with fake programs for iscsiadm and multipath.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    harness::{Device, Disk, Helper, Nodes, TestHost, handlers},
    loud::say,
};

use super::{MOMENT, host_with, kill_in_the_middle, physical_device, until};

/// Portal with an address for documentation (RFC 5737), which no host has.
const PORTAL: &str = "192.0.2.1";

struct San {
    iscsiadm: Helper,
    multipath: Helper,
    host: TestHost,
    iqn: String,
}

impl San {
    fn new(test: &str) -> Result<Self> {
        say("NOTE: iscsiadm is a fake that keeps its sessions: this kernel has no iSCSI. Its calls are checked");
        let mut helpers_made = None;
        // All tests share /dev, so that the name contains the process id.
        let iqn = format!("iqn.2026-01.example:{test}-{}", std::process::id());
        let host = host_with(|_, helpers| {
            let iscsiadm = Helper::iscsiadm(helpers, PORTAL, &[&iqn, &format!("{iqn}-more")])?;
            let multipath = Helper::multipath(helpers, &format!("xenplug-{test}-{}", std::process::id()))?;
            helpers_made = Some((iscsiadm, multipath));
            Ok(handlers::block_iscsi(helpers))
        })?;
        let (iscsiadm, multipath) = helpers_made.context("the table was made")?;
        Ok(Self {
            iscsiadm,
            multipath,
            host,
            iqn,
        })
    }

    fn disk(&self, more: &str) -> Nodes {
        Disk::on(Path::new(&format!("iqn={},portal={PORTAL}{more}", self.iqn)))
            .with("script", "/etc/xen/scripts/block-iscsi")
    }

    fn link(&self) -> String {
        format!("/dev/disk/by-path/ip-{PORTAL}:3260-iscsi-{}-lun-0", self.iqn)
    }

    fn node_calls(&self) -> Vec<String> {
        let calls = self.iscsiadm.calls().into_iter();
        calls.filter(|call| call.starts_with("-m node")).collect()
    }

    fn node_call(&self, word: &str) -> String {
        format!("-m node --targetname {} -p {PORTAL} --{word}", self.iqn)
    }
}

#[test]
fn iscsi_target_is_logged_out_when_its_device_goes() -> Result<()> {
    let mut san = San::new("plain")?;
    let baseline = san.host.baseline()?;
    let disk = Device::disk(3, 0);
    let nodes = san.disk("");
    san.host.plug(&disk, &nodes)?.done()?;
    san.host.expect_connected(&disk)?;
    assert_eq!(
        san.iscsiadm.calls(),
        [
            "-m session".to_owned(),
            format!("-m discovery -t st -p {PORTAL}"),
            san.node_call("login")
        ]
    );
    let device = fs::canonicalize(san.link())?.display().to_string();
    assert_eq!(san.host.node(&disk, "physical-device-path")?.as_ref(), Some(&device));
    assert_eq!(
        san.host.node(&disk, "physical-device")?,
        Some(physical_device(&device)?)
    );
    san.host.call(&disk, "add")?.answer()?.done()?;
    san.host.end_guest_of_dom0(3, &[disk])?;
    assert_eq!(san.node_calls(), [san.node_call("login"), san.node_call("logout")]);
    baseline.assert_same(&san.host)
}

#[test]
fn iscsi_multipath_disk_is_the_mapper_device() -> Result<()> {
    let mut san = San::new("multipath")?;
    let disk = Device::disk(3, 0);
    let nodes = san.disk(",multipath=y");
    san.host.plug(&disk, &nodes)?.done()?;
    let device = fs::canonicalize(san.link())?.display().to_string();
    assert_eq!(san.multipath.calls(), [format!("-ll {device}")]);
    assert_eq!(
        san.host.node(&disk, "physical-device")?,
        Some(physical_device(&device)?)
    );
    san.host.end_guest_of_dom0(3, &[disk])
}

#[test]
fn foreign_iscsi_session_is_neither_used_nor_ended() -> Result<()> {
    let mut san = San::new("taken")?;
    let baseline = san.host.baseline()?;
    // A target whose name only begins with this one is another target.
    fs::write(
        san.iscsiadm.file("sessions"),
        format!("tcp: [1] {PORTAL}:3260,1 {}-more (non-flash)\n", san.iqn),
    )?;
    let disk = Device::disk(3, 0);
    let nodes = san.disk("");
    san.host.plug(&disk, &nodes)?.done()?;
    san.host.unplug(&disk)?.done()?;
    san.iscsiadm.forget_calls()?;

    fs::write(
        san.iscsiadm.file("sessions"),
        format!("tcp: [1] {PORTAL}:3260,1 {} (non-flash)\n", san.iqn),
    )?;
    let answer = san.host.plug(&disk, &nodes)?;
    answer.says("failed", &["block-iscsi", "session", &san.iqn])?;
    assert_eq!(san.host.node(&disk, "hotplug-status")?.as_deref(), Some("busy"));
    san.host.end_guest_of_dom0(3, &[disk])?;
    assert_eq!(san.node_calls(), [""; 0]);
    baseline.assert_same(&san.host)
}

#[test]
fn iscsi_login_failure_reports_the_iscsiadm_message() -> Result<()> {
    let mut san = San::new("refused")?;
    let disk = Device::disk(3, 0);
    fs::write(san.iscsiadm.file("refused"), "")?;
    let nodes = san.disk("");
    let answer = san.host.plug(&disk, &nodes)?;
    answer.says("failed", &["block-iscsi", "--login failed", "authorization failure"])?;
    san.host.unplug(&disk)?.done()?;
    assert_eq!(san.node_calls(), [san.node_call("login")], "there is nothing to undo");

    fs::write(
        san.iscsiadm.file("targets"),
        format!("{PORTAL}:3260,1 {}-more\n", san.iqn),
    )?;
    let answer = san.host.plug(&disk, &nodes)?;
    answer.says("failed", &["has no target", &san.iqn])?;
    san.host.unplug(&disk)?.done()?;
    for params in [
        "/dev/sda",
        "iqn=a",
        "iqn=-x,portal=192.0.2.1",
        "iqn=a;b,portal=192.0.2.1",
    ] {
        let nodes = san.disk("").with("params", params);
        let answer = san.host.plug(&disk, &nodes)?;
        answer.says("failed", &["params"])?;
        san.host.unplug(&disk)?.done()?;
    }
    san.host.toolstack().bury(3)
}

#[test]
fn daemon_killed_during_iscsi_login_logs_out_on_restart() -> Result<()> {
    let mut san = San::new("killed")?;
    let disk = Device::disk(3, 0);
    fs::write(san.iscsiadm.file("slow"), "")?;
    let nodes = san.disk("");
    san.host.attach(&disk, &nodes)?;
    kill_in_the_middle(&mut san.host, &san.iscsiadm, &disk, "--login")?;
    assert_eq!(san.node_calls(), [san.node_call("login"), san.node_call("logout")]);
    ensure!(!Path::new(&san.link()).exists(), "the disk still exists");
    san.host.toolstack().forget(&disk)?;
    san.host.toolstack().bury(3)
}

#[test]
fn failed_iscsi_logout_is_retried_until_it_succeeds() -> Result<()> {
    let mut san = San::new("stuck")?;
    let baseline = san.host.baseline()?;
    let disk = Device::disk(3, 0);
    let nodes = san.disk("");
    san.host.plug(&disk, &nodes)?.done()?;
    fs::write(san.iscsiadm.file("stuck"), "")?;
    let answer = san.host.unplug(&disk)?;
    answer.says("failed", &["--logout", "could not logout"])?;
    std::thread::sleep(MOMENT);
    fs::remove_file(san.iscsiadm.file("stuck"))?;
    until("it is logged out", || Ok(!Path::new(&san.link()).exists()))?;
    san.host.toolstack().bury(3)?;
    baseline.assert_same(&san.host)
}
