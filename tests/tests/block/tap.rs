//! Disks that tapdisk serves, with a stand-in for tap-ctl whose tapdisk is a process that does nothing.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xenplug_tests::{
    loud::say,
    rig::{Call, Machine},
};

use super::{helper::Helper, machine_with, until};

/// Keeps numbers, processes, and what each has attached and open, in files.
const TAP_CTL: &str = r#"
word=$1; shift
while [ $# -gt 0 ]; do
    case $1 in
    -p) pid=$2; shift ;;
    -m) minor=$2; shift ;;
    -a) image=$2; shift ;;
    esac
    shift
done
alive() { kill -0 $pid 2>/dev/null || { echo "no tapdisk $pid" >&2; exit 111; }; }
case $word in
allocate)
    minor=0
    while [ -e $here/minor$minor ]; do minor=$((minor + 1)); done
    : >$here/minor$minor
    echo /run/blktap-control/tapdisk/tapdisk-$minor ;;
free) rm $here/minor$minor || exit 2 ;;
spawn)
    setsid sleep 1000 >/dev/null 2>&1 </dev/null &
    echo $! ;;
attach) alive; [ -e $here/minor$minor ] || exit 2; echo $pid >$here/attached$minor ;;
open) alive; [ ! -e $here/refused ] || { echo "open failed, err -22" >&2; exit 22; }; echo "$image" >$here/open$minor ;;
close) alive; rm $here/open$minor || exit 22 ;;
detach) alive; rm $here/attached$minor || exit 19; kill $pid ;;
*) exit 1 ;;
esac
"#;

struct Tapdisks {
    machine: Machine,
    tap_ctl: Helper,
}

impl Tapdisks {
    fn new() -> Result<Self> {
        say("NOTE: tap-ctl is a stand-in that keeps its disks; its calls are checked, and no block is read");
        let mut tap_ctl = None;
        let machine = machine_with(|machine| {
            let helper = Helper::new(machine.directory(), "tap-ctl", TAP_CTL)?;
            let images = machine.images();
            let rules = helper.rules(&[
                &["allocate"],
                &["spawn"],
                &["free", "-m", "*"],
                &["attach", "-p", "*", "-m", "*"],
                &["detach", "-p", "*", "-m", "*"],
                &["close", "-p", "*", "-m", "*"],
                &[
                    "open",
                    "-p",
                    "*",
                    "-m",
                    "*",
                    "-a",
                    &format!("aio:{}/*", images.display()),
                ],
                &[
                    "open",
                    "-p",
                    "*",
                    "-m",
                    "*",
                    "-a",
                    &format!("aio:{}/*", images.display()),
                    "-R",
                ],
            ]);
            tap_ctl = Some(helper);
            Ok(format!(
                r#"
[plugin.block-tap]
component = "block-tap.wasm"
kinds = ["vbd", "vbd3"]
scripts = ["block-tap"]
[plugin.block-tap.grant]
block = [{{ path = {images:?}, access = "rw" }}]
process = [{rules}]
"#
            ))
        })?;
        Ok(Self {
            machine,
            tap_ctl: tap_ctl.context("the table was made")?,
        })
    }

    /// Writes a backend of the kind vbd3 as libxl does, and runs its script.
    fn plug(&mut self, guest: u16, image: &str, mode: &str) -> Result<xenplug_tests::rig::Answer> {
        self.begin(guest, image, mode)?.answer()
    }

    /// The same, without waiting for the script.
    fn begin(&mut self, guest: u16, image: &str, mode: &str) -> Result<Call> {
        let backend = directory(guest);
        let image = self.machine.images().join(image);
        let store = self.machine.toolstack().store();
        store.transaction(|store| {
            for (name, value) in [
                ("frontend", format!("/local/domain/{guest}/device/vbd/51712")),
                ("frontend-id", guest.to_string()),
                ("online", "1".to_owned()),
                ("state", "1".to_owned()),
                ("params", format!("aio:{}", image.display())),
                ("script", "/etc/xen/scripts/block-tap".to_owned()),
                ("mode", mode.to_owned()),
                ("type", "phy".to_owned()),
                ("device-type", "disk".to_owned()),
            ] {
                store.write(&format!("{backend}/{name}"), value)?;
            }
            Ok(())
        })?;
        self.call(guest, "add")
    }

    fn call(&mut self, guest: u16, action: &str) -> Result<Call> {
        let call = json!({ "script": "block-tap", "action": action, "backend": directory(guest) });
        Call::with(&call.to_string(), &self.machine.control_socket()?)
    }

    fn unplug(&mut self, guest: u16) -> Result<()> {
        let backend = directory(guest);
        self.call(guest, "remove")?.answer()?.done()?;
        self.machine.toolstack().store().remove(&backend)?;
        Ok(())
    }

    fn node(&self, guest: u16, name: &str) -> Result<String> {
        let node = self.machine.connect()?.find(&format!("{}/{name}", directory(guest)))?;
        node.with_context(|| format!("there is no {name}"))
    }

    /// The files of its state.
    fn state(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(self.tap_ctl.file("."))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.retain(|name| !matches!(&**name, "tap-ctl" | "calls" | "refused"));
        names.sort();
        Ok(names)
    }
}

fn directory(guest: u16) -> String {
    format!("/local/domain/0/backend/vbd3/{guest}/51712")
}

fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

#[test]
fn tapdisk_serves_an_image_and_ends_with_its_device() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.machine.image("a.img", 4)?;
    let image = tap.machine.images().join("a.img");
    tap.machine.toolstack().build(3)?;
    tap.plug(3, "a.img", "w")?.done()?;
    let pid = tap.node(3, "pid")?;
    assert_eq!(tap.node(3, "minor")?, "0");
    assert_eq!(
        tap.node(3, "physical-device-path")?,
        format!("/run/blktap-control/nbd{pid}.0")
    );
    assert_eq!(tap.node(3, "hotplug-status")?, "connected");
    assert!(tap.node(3, "physical-device").is_err(), "tapback takes the path");
    ensure!(runs(&pid), "tapdisk has ended");
    assert_eq!(tap.state()?, ["attached0", "minor0", "open0"]);

    // Another guest's is refused as long as this one writes.
    tap.machine.toolstack().build(4)?;
    tap.plug(4, "a.img", "r")?
        .says("failed", &["block-tap", "used by domain 3"])?;
    assert_eq!(tap.node(4, "hotplug-status")?, "busy");
    tap.unplug(4)?;

    tap.unplug(3)?;
    assert_eq!(tap.state()?, [""; 0]);
    until("tapdisk ends", || Ok(!runs(&pid)))?;
    let image = image.canonicalize()?.display().to_string();
    assert_eq!(
        tap.tap_ctl.calls(),
        [
            "allocate".to_owned(),
            "spawn".to_owned(),
            format!("attach -p {pid} -m 0"),
            format!("open -p {pid} -m 0 -a aio:{image}"),
            format!("close -p {pid} -m 0"),
            format!("detach -p {pid} -m 0"),
            "free -m 0".to_owned(),
        ]
    );
    tap.machine.toolstack().bury(4)?;
    tap.machine.toolstack().bury(3)
}

#[test]
fn readers_of_an_image_share_a_tapdisk_and_the_last_one_ends_it() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.machine.image("a.img", 4)?;
    for guest in [3, 4, 5] {
        tap.machine.toolstack().build(guest)?;
    }
    tap.plug(3, "a.img", "r")?.done()?;
    tap.plug(4, "a.img", "r")?.done()?;
    let pid = tap.node(3, "pid")?;
    assert_eq!(tap.node(4, "pid")?, pid);
    assert_eq!(
        tap.node(4, "physical-device-path")?,
        tap.node(3, "physical-device-path")?
    );
    assert_eq!(tap.state()?, ["attached0", "minor0", "open0"]);
    assert_eq!(tap.tap_ctl.calls().len(), 4, "{:?}", tap.tap_ctl.calls());

    // The next daemon knows who shares it.
    tap.machine.daemon_mut()?.kill()?;
    tap.machine.daemon_mut()?.restart()?;
    tap.plug(5, "a.img", "r")?.done()?;
    assert_eq!(tap.node(5, "pid")?, pid);
    tap.unplug(3)?;
    tap.unplug(5)?;
    ensure!(runs(&pid), "another guest reads it");
    assert_eq!(tap.tap_ctl.calls().len(), 4, "{:?}", tap.tap_ctl.calls());
    tap.unplug(4)?;
    assert_eq!(tap.state()?, [""; 0]);
    until("tapdisk ends", || Ok(!runs(&pid)))?;
    for guest in [3, 4, 5] {
        tap.machine.toolstack().bury(guest)?;
    }
    Ok(())
}

#[test]
fn killed_while_two_share_a_tapdisk_the_daemon_leaves_one_and_then_none() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.machine.image("a.img", 4)?;
    for guest in [3, 4] {
        tap.machine.toolstack().build(guest)?;
    }
    for moment in [0, 5, 10, 20, 40, 80] {
        tap.tap_ctl.forget_calls()?;
        let calls = [3, 4].map(|guest| tap.begin(guest, "a.img", "r"));
        thread::sleep(Duration::from_millis(moment));
        tap.machine.daemon_mut()?.kill()?;
        drop(calls);
        tap.machine.daemon_mut()?.restart()?;
        for guest in [3, 4] {
            tap.plug(guest, "a.img", "r")?.done()?;
        }
        let pid = tap.node(3, "pid")?;
        assert_eq!(tap.node(4, "pid")?, pid, "after {moment} ms: {:?}", tap.tap_ctl.calls());
        ensure!(runs(&pid), "it has ended");
        for guest in [3, 4] {
            tap.unplug(guest)?;
        }
        until("tapdisk ends", || Ok(!runs(&pid)))?;
        // A number that was allocated and not told when the daemon was killed stays allocated: tap-ctl does not say whose it is.
        let state = tap.state()?;
        ensure!(state.iter().all(|name| name.starts_with("minor")), "{state:?}");
        say(&format!(
            "killed after {moment} ms: {} calls, left {state:?}",
            tap.tap_ctl.calls().len()
        ));
    }
    Ok(())
}

#[test]
fn an_image_that_cannot_be_opened_leaves_no_tapdisk() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.machine.image("a.img", 4)?;
    tap.machine.toolstack().build(3)?;
    fs::write(tap.tap_ctl.file("refused"), "")?;
    tap.plug(3, "a.img", "r")?
        .says("failed", &["block-tap", "-R failed", "open failed, err -22"])?;
    assert_eq!(tap.state()?, [""; 0]);
    let calls = tap.tap_ctl.calls();
    let last: Vec<&str> = calls.iter().rev().take(2).map(String::as_str).collect();
    ensure!(last[0] == "free -m 0" && last[1].starts_with("detach"), "{calls:?}");
    tap.unplug(3)?;
    tap.machine.toolstack().bury(3)
}

#[test]
fn a_tapdisk_that_was_killed_holds_nothing_up() -> Result<()> {
    let mut tap = Tapdisks::new()?;
    tap.machine.image("a.img", 4)?;
    tap.machine.toolstack().build(3)?;
    tap.plug(3, "a.img", "w")?.done()?;
    let pid = tap.node(3, "pid")?;
    ensure!(Command::new("kill").args(["-9", &pid]).status()?.success());
    until("it is gone", || Ok(!runs(&pid)))?;
    tap.unplug(3)?;
    assert!(!tap.state()?.contains(&"minor0".to_owned()));
    tap.machine.toolstack().bury(3)
}
