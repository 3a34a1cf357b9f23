//! Disks on iSCSI targets, with a stand-in for iscsiadm and multipath.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    loud::say,
    rig::{Device, Disk, Machine, Nodes},
};

use super::{MOMENT, helper::Helper, kill_in_the_middle, machine_with, physical_device, until};

/// Keeps its sessions in a file, and makes the disk of a session a loop device under the name that udev would give it.
const ISCSIADM: &str = r#"
touch $here/sessions
case "$*" in
"-m session")
    [ -s $here/sessions ] || { echo "iscsiadm: No active sessions." >&2; exit 21; }
    cat $here/sessions ;;
"-m discovery -t st -p "*)
    cat $here/targets ;;
"-m node --targetname "*" -p "*" --login")
    grep -q " $4 " $here/sessions && { echo "iscsiadm: session exists" >&2; exit 15; }
    [ ! -e $here/refused ] || { echo "iscsiadm: initiator reported error (24 - iSCSI login failed due to authorization failure)" >&2; exit 24; }
    mkdir -p /dev/disk/by-path
    ln -s $(losetup --find --show $here/disk.img) "/dev/disk/by-path/ip-$6:3260-iscsi-$4-lun-0"
    echo "tcp: [1] $6:3260,1 $4 (non-flash)" >>$here/sessions
    [ ! -e $here/slow ] || sleep 100 ;;
"-m node --targetname "*" -p "*" --logout")
    grep -q " $4 " $here/sessions || { echo "iscsiadm: No matching sessions found" >&2; exit 21; }
    [ ! -e $here/stuck ] || { echo "iscsiadm: could not logout" >&2; exit 9; }
    link="/dev/disk/by-path/ip-$6:3260-iscsi-$4-lun-0"
    losetup -d $(readlink $link)
    rm $link
    : >$here/sessions ;;
*) exit 7 ;;
esac
"#;

/// Knows one device.
const MULTIPATH: &str = r#"
[ "$1" = -ll ] || exit 1
mkdir -p /dev/mapper
ln -sf $2 /dev/mapper/$(cat $here/name)
echo "$(cat $here/name) (3600140) dm-0 LIO-ORG,disk"
echo "size=4.0M features='0'"
"#;

/// The portal. Its address is for documentation (RFC 5737), and no machine's.
const PORTAL: &str = "192.0.2.1";

struct San {
    machine: Machine,
    iscsiadm: Helper,
    multipath: Helper,
    iqn: String,
}

impl San {
    fn new(test: &str) -> Result<Self> {
        say("NOTE: iscsiadm is a stand-in that keeps its sessions: this kernel has no iSCSI. Its calls are checked");
        let mut helpers = None;
        // Names in /dev are all tests'.
        let iqn = format!("iqn.2026-01.example:{test}-{}", std::process::id());
        let machine = machine_with(|machine| {
            let iscsiadm = Helper::new(machine.directory(), "iscsiadm", ISCSIADM)?;
            let multipath = Helper::new(machine.directory(), "multipath", MULTIPATH)?;
            fs::File::create(iscsiadm.file("disk.img"))?.set_len(4 << 20)?;
            fs::write(
                iscsiadm.file("targets"),
                format!("{PORTAL}:3260,1 {iqn}\n{PORTAL}:3260,1 {iqn}-more\n"),
            )?;
            fs::write(multipath.file("name"), format!("xenplug-{test}-{}", std::process::id()))?;
            let rules = iscsiadm.rules(&[
                &["-m", "session"],
                &["-m", "discovery", "-t", "st", "-p", "*"],
                &["-m", "node", "--targetname", "iqn.*", "-p", "*", "--login"],
                &["-m", "node", "--targetname", "iqn.*", "-p", "*", "--logout"],
            ]);
            let more = multipath.rules(&[&["-ll", "/dev/*"]]);
            helpers = Some((iscsiadm, multipath));
            Ok(format!(
                r#"
[plugin.block-iscsi]
component = "block-iscsi.wasm"
kinds = ["vbd"]
scripts = ["block-iscsi"]
[plugin.block-iscsi.grant]
block = [{{ path = "/dev/disk/by-path/ip-*", access = "rw" }}, {{ path = "/dev/mapper", access = "rw" }}]
process = [{rules}, {more}]
"#
            ))
        })?;
        let (iscsiadm, multipath) = helpers.context("the table was made")?;
        Ok(Self {
            machine,
            iscsiadm,
            multipath,
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

impl Drop for San {
    fn drop(&mut self) {
        if let Ok(device) = fs::read_link(self.link()) {
            let _ = Command::new("losetup").arg("-d").arg(device).status();
            let _ = fs::remove_file(self.link());
        }
        if let Ok(name) = fs::read_to_string(self.multipath.file("name")) {
            let _ = fs::remove_file(Path::new("/dev/mapper").join(name));
        }
        // Those that are empty: others' tests may use them too.
        for directory in ["/dev/disk/by-path", "/dev/disk", "/dev/mapper"] {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[test]
fn a_target_is_logged_in_to_and_logged_out_of_when_its_device_goes() -> Result<()> {
    let mut san = San::new("plain")?;
    let baseline = san.machine.baseline()?;
    let disk = Device::disk(3, 0);
    let nodes = san.disk("");
    san.machine.plug(&disk, &nodes)?.done()?;
    san.machine.expect_connected(&disk)?;
    assert_eq!(
        san.iscsiadm.calls(),
        [
            "-m session".to_owned(),
            format!("-m discovery -t st -p {PORTAL}"),
            san.node_call("login")
        ]
    );
    let device = fs::canonicalize(san.link())?.display().to_string();
    assert_eq!(san.machine.node(&disk, "physical-device-path")?.as_ref(), Some(&device));
    assert_eq!(
        san.machine.node(&disk, "physical-device")?,
        Some(physical_device(&device)?)
    );
    san.machine.call(&disk, "add")?.answer()?.done()?;
    san.machine.end_guest_of_dom0(3, &[disk])?;
    assert_eq!(san.node_calls(), [san.node_call("login"), san.node_call("logout")]);
    baseline.assert_same(&san.machine)
}

#[test]
fn with_multipath_the_disk_is_that_of_the_mapper() -> Result<()> {
    let mut san = San::new("multipath")?;
    let disk = Device::disk(3, 0);
    let nodes = san.disk(",multipath=y");
    san.machine.plug(&disk, &nodes)?.done()?;
    let device = fs::canonicalize(san.link())?.display().to_string();
    assert_eq!(san.multipath.calls(), [format!("-ll {device}")]);
    assert_eq!(
        san.machine.node(&disk, "physical-device")?,
        Some(physical_device(&device)?)
    );
    san.machine.end_guest_of_dom0(3, &[disk])
}

#[test]
fn a_session_of_somebody_elses_is_neither_used_nor_ended() -> Result<()> {
    let mut san = San::new("taken")?;
    let baseline = san.machine.baseline()?;
    // One whose name goes on is another.
    fs::write(
        san.iscsiadm.file("sessions"),
        format!("tcp: [1] {PORTAL}:3260,1 {}-more (non-flash)\n", san.iqn),
    )?;
    let disk = Device::disk(3, 0);
    let nodes = san.disk("");
    san.machine.plug(&disk, &nodes)?.done()?;
    san.machine.unplug(&disk)?.done()?;
    san.iscsiadm.forget_calls()?;

    fs::write(
        san.iscsiadm.file("sessions"),
        format!("tcp: [1] {PORTAL}:3260,1 {} (non-flash)\n", san.iqn),
    )?;
    let answer = san.machine.plug(&disk, &nodes)?;
    answer.says("failed", &["block-iscsi", "session", &san.iqn])?;
    assert_eq!(san.machine.node(&disk, "hotplug-status")?.as_deref(), Some("busy"));
    san.machine.end_guest_of_dom0(3, &[disk])?;
    assert_eq!(san.node_calls(), [""; 0]);
    baseline.assert_same(&san.machine)
}

#[test]
fn what_cannot_be_logged_in_to_is_told_in_iscsiadms_words() -> Result<()> {
    let mut san = San::new("refused")?;
    let disk = Device::disk(3, 0);
    fs::write(san.iscsiadm.file("refused"), "")?;
    let nodes = san.disk("");
    let answer = san.machine.plug(&disk, &nodes)?;
    answer.says("failed", &["block-iscsi", "--login failed", "authorization failure"])?;
    san.machine.unplug(&disk)?.done()?;
    assert_eq!(san.node_calls(), [san.node_call("login")], "there is nothing to undo");

    fs::write(
        san.iscsiadm.file("targets"),
        format!("{PORTAL}:3260,1 {}-more\n", san.iqn),
    )?;
    let answer = san.machine.plug(&disk, &nodes)?;
    answer.says("failed", &["has no target", &san.iqn])?;
    san.machine.unplug(&disk)?.done()?;
    for params in [
        "/dev/sda",
        "iqn=a",
        "iqn=-x,portal=192.0.2.1",
        "iqn=a;b,portal=192.0.2.1",
    ] {
        let nodes = san.disk("").with("params", params);
        let answer = san.machine.plug(&disk, &nodes)?;
        answer.says("failed", &["params"])?;
        san.machine.unplug(&disk)?.done()?;
    }
    san.machine.toolstack().bury(3)
}

#[test]
fn killed_while_it_logs_in_the_daemon_logs_out() -> Result<()> {
    let mut san = San::new("killed")?;
    let disk = Device::disk(3, 0);
    fs::write(san.iscsiadm.file("slow"), "")?;
    let nodes = san.disk("");
    san.machine.attach(&disk, &nodes)?;
    kill_in_the_middle(&mut san.machine, &san.iscsiadm, &disk, "--login")?;
    assert_eq!(san.node_calls(), [san.node_call("login"), san.node_call("logout")]);
    ensure!(!Path::new(&san.link()).exists(), "the disk is there still");
    san.machine.toolstack().forget(&disk)?;
    san.machine.toolstack().bury(3)
}

#[test]
fn a_logout_that_fails_is_tried_until_it_succeeds() -> Result<()> {
    let mut san = San::new("stuck")?;
    let baseline = san.machine.baseline()?;
    let disk = Device::disk(3, 0);
    let nodes = san.disk("");
    san.machine.plug(&disk, &nodes)?.done()?;
    fs::write(san.iscsiadm.file("stuck"), "")?;
    let answer = san.machine.unplug(&disk)?;
    answer.says("failed", &["--logout", "could not logout"])?;
    std::thread::sleep(MOMENT);
    fs::remove_file(san.iscsiadm.file("stuck"))?;
    until("it is logged out", || Ok(!Path::new(&san.link()).exists()))?;
    san.machine.toolstack().bury(3)?;
    baseline.assert_same(&san.machine)
}
