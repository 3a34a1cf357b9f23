//! Disks that QEMU serves, in a driver domain and in dom0, with a stand-in for QEMU that plays its part in the store.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use xenplug_tests::{
    harness::{Config, Helper, TestHost, build_directory},
    loud::say,
};

use super::until;

/// The driver domain.
const OWN: u16 = 1;

/// QEMU's arguments for a guest, as patterns.
const ARGUMENTS: &[&str] = &[
    "-xen-domid",
    "*",
    "-xen-attach",
    "-name",
    "domain-*",
    "-nographic",
    "-M",
    "xenpv",
    "-monitor",
    "/dev/null",
    "-serial",
    "/dev/null",
    "-parallel",
    "/dev/null",
];

/// A driver domain, or dom0, with the plugin `qdisk`, whose QEMU is the stand-in.
struct Qemus {
    machine: TestHost,
    qemu: Helper,
    /// Where it is.
    domain: u16,
}

impl Qemus {
    fn new() -> Result<Self> {
        Self::with("", "")
    }

    /// With words of a shell before QEMU is started, and settings of the plugin's.
    fn with(before: &str, settings: &str) -> Result<Self> {
        let mut machine = TestHost::new()?;
        machine
            .toolstack()
            .store()
            .write("/local/domain/0/domid", OWN.to_string())?;
        let config = machine.config()?;
        Self::on(machine, config, OWN, before, settings)
    }

    /// In dom0, where it serves what it is asked for.
    fn in_dom0() -> Result<Self> {
        let machine = TestHost::new()?;
        let config = machine.config_of_dom0()?;
        let qemus = Self::on(machine, config, 0, "", "")?;
        let done = qemus.machine.xenplug(&["prepare", "0"])?.output()?;
        ensure!(done.status.success(), "xenplug prepare: {done:?}");
        Ok(qemus)
    }

    fn on(mut machine: TestHost, config: Config, domain: u16, before: &str, settings: &str) -> Result<Self> {
        say("NOTE: QEMU is a stand-in that plays its part in the store; no block is read");
        machine.stop_kernel();
        let text = format!(
            "echo $$ >>$here/started\n{before}\nexec env STAND_IN_STORE={:?} STAND_IN_DOMAIN={domain} STAND_IN_STATE=$here \
             {:?} \"$@\"\n",
            machine.xenstored().socket(),
            build_directory()?.join("xenplug-qemu"),
        );
        let qemu = Helper::new(machine.directory(), "qemu", &text)?;
        let table = format!(
            r#"
[plugin.qdisk]
component = "qdisk.wasm"
kinds = ["qdisk"]
scripts = ["qdisk"]
[plugin.qdisk.grant]
block = [{{ path = {images:?}, access = "rw" }}]
process = [{rules}]
[plugin.qdisk.config]
{settings}
"#,
            images = machine.images(),
            rules = qemu.rules(&[ARGUMENTS]),
        );
        machine.start_daemon(config.with(&table))?;
        Ok(Self { machine, qemu, domain })
    }

    /// Writes a disk as libxl does, for a guest that is built if it is not there.
    fn attach(&mut self, disk: Disk, params: &str, mode: &str) -> Result<()> {
        let images = self.machine.images();
        let (format, image) = params.split_once(':').context("a format and an image")?;
        let toolstack = self.machine.toolstack();
        if !toolstack.store().is_introduced(disk.guest)? {
            toolstack.build(disk.guest)?;
        }
        toolstack.store().transaction(|store| {
            for (name, value) in [
                (
                    "frontend",
                    format!("/local/domain/{}/device/vbd/{}", disk.guest, disk.devid),
                ),
                ("params", format!("{format}:{}", images.join(image).display())),
                ("frontend-id", disk.guest.to_string()),
                ("online", "1".to_owned()),
                ("removable", "0".to_owned()),
                ("bootable", "1".to_owned()),
                ("state", "1".to_owned()),
                ("type", "qdisk".to_owned()),
                ("mode", mode.to_owned()),
                ("device-type", "disk".to_owned()),
                ("discard-enable", "1".to_owned()),
            ] {
                store.write(&format!("{}/{name}", disk.backend()), value)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Asks for a disk's removal as libxl does, and waits until it has gone.
    fn detach(&mut self, disk: Disk) -> Result<()> {
        self.machine.toolstack().store().transaction(|store| {
            store.write(&format!("{}/online", disk.backend()), "0")?;
            store.write(&format!("{}/state", disk.backend()), "5")
        })?;
        self.expect(&disk.node("state"), None)
    }

    fn expect_connected(&self, disk: Disk) -> Result<()> {
        self.expect(&disk.node("hotplug-status"), Some("connected"))?;
        self.expect(&disk.node("state"), Some("2"))?;
        // The daemon's own word, not QEMU's.
        until("it is connected", || {
            let status = self.machine.daemon().context("it runs")?.status()?;
            Ok(status.to_string().contains("its part of qemu"))
        })
    }

    fn expect_failure(&self, disk: Disk, status: &str, words: &[&str]) -> Result<()> {
        self.expect(&disk.node("hotplug-status"), Some(status))?;
        let error = self
            .machine
            .connect()?
            .find(&disk.node("hotplug-error"))?
            .unwrap_or_default();
        for word in words {
            ensure!(error.contains(word), "{error:?} does not say {word:?}");
        }
        Ok(())
    }

    fn expect(&self, node: &str, value: Option<&str>) -> Result<()> {
        let mut store = self.machine.connect()?;
        match store.wait(node, Duration::from_secs(20), |now| now == value)? {
            Ok(_) => Ok(()),
            Err(found) => anyhow::bail!("{node} is {found:?} and not {value:?}\n{}", self.machine.daemon_log()),
        }
    }

    /// The processes that were ever started.
    fn started(&self) -> Vec<i32> {
        let started = fs::read_to_string(self.qemu.file("started")).unwrap_or_default();
        started.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Those of them that run.
    fn running(&self) -> Vec<i32> {
        let runs = |pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let own = self.qemu.file("").display().to_string();
            String::from_utf8_lossy(&environment).contains(own.trim_end_matches('/'))
                && stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
        };
        self.started().into_iter().filter(runs).collect()
    }

    fn kill(&self, pid: i32) -> Result<()> {
        Ok(kill_process(Pid::from_raw(pid).context("a process")?, Signal::KILL)?)
    }

    fn nothing_is_left(&self) -> Result<()> {
        until("QEMU ends", || Ok(self.running().is_empty()))?;
        let mut store = self.machine.connect()?;
        let written = format!("/local/domain/{}/device-model/3", self.domain);
        until("what QEMU wrote goes", || Ok(store.tree(&written)?.is_empty()))?;
        let journal = self.machine.directory().join("run/journal");
        until("the journal's records go", || {
            let names = fs::read_dir(&journal)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let names: Vec<String> = names.collect::<Result<_>>()?;
            Ok(!names.iter().any(|name| name.contains("qdisk")))
        })
    }
}

impl Drop for Qemus {
    fn drop(&mut self) {
        for pid in self.running() {
            let _ = self.kill(pid);
        }
    }
}

#[derive(Clone, Copy)]
struct Disk {
    guest: u16,
    devid: u32,
}

const A: Disk = Disk { guest: 3, devid: 51712 };
const B: Disk = Disk { guest: 3, devid: 51728 };
const OTHER: Disk = Disk { guest: 4, devid: 51712 };

impl Disk {
    fn backend(self) -> String {
        format!("/local/domain/{OWN}/backend/qdisk/{}/{}", self.guest, self.devid)
    }

    fn node(self, name: &str) -> String {
        format!("{}/{name}", self.backend())
    }
}

#[test]
fn qemu_serves_all_disks_of_a_guest_and_ends_with_the_last() -> Result<()> {
    let mut qemus = Qemus::new()?;
    qemus.machine.image("a.img", 4)?;
    fs::write(qemus.machine.images().join("b.qcow2"), b"QFI\xfb\0\0\0\x03")?;
    qemus.machine.image("c.img", 4)?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.attach(B, "qcow2:b.qcow2", "w")?;
    qemus.expect_connected(A)?;
    qemus.expect_connected(B)?;
    assert_eq!(qemus.started().len(), 1, "{:?}", qemus.qemu.calls());
    assert_eq!(
        qemus.qemu.calls(),
        [
            "-xen-domid 3 -xen-attach -name domain-3 -nographic -M xenpv -monitor /dev/null -serial /dev/null -parallel /dev/null"
        ]
    );

    // Another guest has its own, and may not write what this one writes.
    qemus.attach(OTHER, "aio:a.img", "r")?;
    qemus.expect_failure(OTHER, "busy", &["qdisk", "used by domain 3"])?;
    qemus.detach(OTHER)?;
    qemus.attach(OTHER, "aio:c.img", "w")?;
    qemus.expect_connected(OTHER)?;
    until("two of them run", || Ok(qemus.running().len() == 2))?;

    qemus.detach(A)?;
    qemus.detach(OTHER)?;
    until("one of them ends", || Ok(qemus.running() == qemus.started()[..1]))?;
    thread::sleep(super::MOMENT);
    assert_eq!(qemus.running(), qemus.started()[..1], "the other disk needs it");
    qemus.expect(&B.node("hotplug-status"), Some("connected"))?;
    qemus.detach(B)?;
    qemus.nothing_is_left()
}

#[test]
fn dead_qemu_is_reported_and_its_disks_can_be_detached() -> Result<()> {
    let mut qemus = Qemus::new()?;
    qemus.machine.image("a.img", 4)?;
    qemus.machine.image("b.img", 4)?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.attach(B, "aio:b.img", "w")?;
    qemus.expect_connected(A)?;
    qemus.expect_connected(B)?;
    qemus.kill(qemus.running()[0])?;
    let begun = Instant::now();
    for disk in [A, B] {
        qemus.expect_failure(disk, "error", &["qdisk: qemu has ended by itself"])?;
    }
    say(&format!("the end of QEMU was told after {:?}", begun.elapsed()));
    assert_eq!(qemus.started().len(), 1, "guests cannot come back to another one");
    // Nobody writes state 6 any more.
    qemus.detach(A)?;
    qemus.detach(B)?;
    qemus.nothing_is_left()?;

    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_connected(A)?;
    assert_eq!(qemus.started().len(), 2);
    qemus.detach(A)?;
    qemus.nothing_is_left()
}

#[test]
fn restarted_daemon_adopts_running_qemus() -> Result<()> {
    let mut qemus = Qemus::new()?;
    qemus.machine.image("a.img", 4)?;
    qemus.machine.image("b.img", 4)?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_connected(A)?;
    qemus.machine.daemon_mut()?.kill()?;
    qemus.machine.daemon_mut()?.restart()?;
    qemus.attach(B, "aio:b.img", "w")?;
    qemus.expect_connected(B)?;
    assert_eq!((qemus.started().len(), qemus.running().len()), (1, 1));

    // The restarted one is no parent of it, and notices all the same.
    qemus.kill(qemus.running()[0])?;
    qemus.expect_failure(A, "error", &["qemu has ended by itself"])?;
    qemus.detach(A)?;
    qemus.detach(B)?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_connected(A)?;

    // One that dies while the daemon is away, and that has taken up a disk of which the daemon never heard.
    qemus.machine.daemon_mut()?.kill()?;
    qemus.attach(B, "aio:b.img", "w")?;
    qemus.expect(&B.node("state"), Some("2"))?;
    qemus.kill(qemus.running()[0])?;
    qemus.machine.daemon_mut()?.restart()?;
    qemus.expect_failure(A, "error", &["qdisk: was lost while xenplugd was away: qemu has ended"])?;
    qemus.expect_failure(B, "error", &["qdisk: qemu has ended, which had taken it up"])?;
    qemus.detach(A)?;
    qemus.detach(B)?;
    qemus.nothing_is_left()
}

#[test]
fn disk_that_qemu_does_not_take_up_fails_and_leaves_nothing() -> Result<()> {
    let mut qemus = Qemus::with("", "patience = 1500")?;
    qemus.machine.image("a.img", 4)?;
    qemus.machine.image("b.qcow2", 4)?;

    // QEMU says why.
    qemus.attach(B, "qcow2:b.qcow2", "w")?;
    qemus.expect_failure(B, "error", &["'qdisk' device '51728'", "Image is not in qcow2 format"])?;
    until("QEMU ends", || Ok(qemus.running().is_empty()))?;
    qemus.detach(B)?;

    // It says nothing.
    fs::write(qemus.qemu.file("never"), "")?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_failure(A, "error", &["qdisk: qemu has not taken the device up in 1500 ms"])?;
    qemus.detach(A)?;
    qemus.nothing_is_left()?;

    // What is not served or not granted is not started.
    fs::remove_file(qemus.qemu.file("never"))?;
    qemus.attach(A, "vhd:a.img", "w")?;
    qemus.expect_failure(A, "error", &["params: `vhd` is none of the formats aio qcow2"])?;
    qemus.detach(A)?;
    qemus.attach(A, "aio:../a.img", "w")?;
    qemus.expect_failure(A, "error", &["qdisk: "])?;
    qemus.detach(A)?;
    assert_eq!(qemus.started().len(), 2);
    qemus.nothing_is_left()
}

#[test]
fn qemu_start_failure_reports_its_cause() -> Result<()> {
    let mut qemus = Qemus::with("echo 'qemu: -sandbox: not compiled in' >&2; exit 1", "")?;
    qemus.machine.image("a.img", 4)?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_failure(
        A,
        "error",
        &["qdisk: qemu has ended by itself; its last output line: qemu: -sandbox: not compiled in"],
    )?;
    qemus.detach(A)?;
    qemus.nothing_is_left()
}

#[test]
fn qemu_that_does_not_end_is_killed() -> Result<()> {
    let mut qemus = Qemus::with("trap '' TERM", "")?;
    qemus.machine.image("a.img", 4)?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_connected(A)?;
    qemus.detach(A)?;
    qemus.nothing_is_left()
}

#[test]
fn qemu_output_never_blocks_qemu() -> Result<()> {
    let mut qemus = Qemus::new()?;
    for image in ["a.img", "b.img"] {
        qemus.machine.image(image, 4)?;
    }
    fs::write(qemus.qemu.file("chatty"), "")?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_connected(A)?;
    thread::sleep(Duration::from_secs(1));
    let log = qemus.machine.daemon().context("it runs")?.log();
    ensure!(log.contains("chatter chatter"), "it is not in the log");
    // 80 KB every 10 ms; of each half second the log has 64 lines.
    ensure!(log.len() < 512 << 10, "the log has {} bytes", log.len());

    // With nobody to read it either.
    qemus.machine.daemon_mut()?.kill()?;
    thread::sleep(super::MOMENT);
    qemus.attach(B, "aio:b.img", "w")?;
    qemus.expect(&B.node("state"), Some("2"))?;
    qemus.machine.daemon_mut()?.restart()?;
    let was = qemus
        .machine
        .daemon()
        .context("it runs")?
        .log()
        .matches("chatter chatter")
        .count();
    until("it is heard again", || {
        let log = qemus.machine.daemon().context("it runs")?.log();
        Ok(log.matches("chatter chatter").count() > was)
    })?;
    qemus.detach(A)?;
    qemus.detach(B)?;
    qemus.nothing_is_left()
}

#[test]
fn daemon_killed_during_qemu_start_leaves_no_second_qemu() -> Result<()> {
    let mut qemus = Qemus::new()?;
    qemus.machine.image("a.img", 4)?;
    qemus.machine.image("b.img", 4)?;
    let mut found = BTreeSet::new();
    for moment in [0, 1, 2, 4, 8, 16, 32, 64, 128] {
        let before = qemus.started().len();
        qemus.attach(A, "aio:a.img", "w")?;
        qemus.attach(B, "aio:b.img", "w")?;
        thread::sleep(Duration::from_millis(moment));
        qemus.machine.daemon_mut()?.kill()?;
        found.insert(qemus.started().len() - before);
        qemus.machine.daemon_mut()?.restart()?;
        let mut store = qemus.machine.connect()?;
        for disk in [A, B] {
            // A QEMU that went with its device, after that had left state 1, is told: the toolstack has to begin anew.
            let status = store.wait(&disk.node("hotplug-status"), Duration::from_secs(20), |status| {
                matches!(status, Some("connected" | "error"))
            })?;
            ensure!(status.is_ok(), "{status:?}\n{}", qemus.machine.daemon_log());
        }
        until("one at most runs", || Ok(qemus.running().len() <= 1))?;
        qemus.detach(A)?;
        qemus.detach(B)?;
        qemus.nothing_is_left()?;
    }
    say(&format!(
        "QEMUs that were started when the daemon was killed: {found:?}"
    ));
    Ok(())
}

#[test]
fn running_guest_gets_requested_qemu_disks_also_in_dom0() -> Result<()> {
    let mut qemus = Qemus::in_dom0()?;
    qemus.machine.toolstack().build(3)?;
    let (raw, qcow2) = (qemus.machine.image("a.img", 4)?, qemus.machine.images().join("b.qcow2"));
    fs::write(&qcow2, b"QFI\xfb\0\0\0\x03")?;
    let ask = |what: &str, disk: &str| -> Result<()> {
        let words = [
            what,
            "--backend",
            "0",
            "--frontend",
            "3",
            "--wait",
            "--timeout",
            "60s",
            "vbd",
            disk,
        ];
        let done = qemus.machine.xenplug(&words)?.output()?;
        ensure!(
            done.status.success(),
            "{what} {disk}: {done:?}\n{}",
            qemus.machine.daemon_log()
        );
        Ok(())
    };
    let disk = |format: &str, name: &str, image: &Path| {
        format!(
            "format={format},vdev={name},backendtype=qdisk,target={}",
            image.display()
        )
    };
    for _ in 0..2 {
        let before = qemus.started().len();
        ask("attach", &disk("raw", "xvda", &raw))?;
        ask("attach", &disk("qcow2", "xvdb", &qcow2))?;
        assert_eq!((qemus.started().len() - before, qemus.running().len()), (1, 1));
        ask("detach", "xvda")?;
        assert_eq!(qemus.running().len(), 1);
        ask("detach", "xvdb")?;
        assert_eq!(qemus.running(), [0; 0], "detach returned, and QEMU runs");
        qemus.nothing_is_left()?;
        // QEMU has removed its disk's directory itself.
        let above = qemus.machine.connect()?.children("/local/domain/0/backend")?;
        assert_eq!(above, [""; 0]);
    }
    // One of the toolstack's would take up the same disks.
    for its in [
        "/local/domain/3/image/device-model-pid",
        "/local/domain/0/libxl/3/qdisk-backend-pid",
    ] {
        let state = "/local/domain/0/device-model/3/state";
        let mut store = qemus.machine.connect()?;
        store.write(its, "4711")?;
        store.write(state, "running")?;
        let before = qemus.started();
        let said = ask("attach", &disk("raw", "xvda", &raw));
        let error = said.err().context("it is attached")?.to_string();
        ensure!(
            error.contains("qdisk: qemu: the toolstack has one for domain 3"),
            "{error}"
        );
        assert_eq!(qemus.started(), before);
        assert_eq!(store.find(state)?.as_deref(), Some("running"), "it is the toolstack's");
        store.remove(its)?;
        store.remove(state)?;
    }
    Ok(())
}
