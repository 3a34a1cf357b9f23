//! Disks that QEMU serves, in a driver domain and in dom0, with a fake program that plays QEMU's part in the store.

mod fixture;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use fixture::{A, B, OTHER, Qemus};
use xenplug_tests::loud::say;

use super::until;

#[test]
fn qemu_serves_all_disks_of_a_guest_and_ends_with_the_last() -> Result<()> {
    let mut qemus = Qemus::new()?;
    qemus.host.image("a.img", 4)?;
    fs::write(qemus.host.images().join("b.qcow2"), b"QFI\xfb\0\0\0\x03")?;
    qemus.host.image("c.img", 4)?;
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

    // Another guest has a QEMU of its own, and is refused an image that this one writes.
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
    qemus.host.image("a.img", 4)?;
    qemus.host.image("b.img", 4)?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.attach(B, "aio:b.img", "w")?;
    qemus.expect_connected(A)?;
    qemus.expect_connected(B)?;
    qemus.kill(qemus.running()[0])?;
    let begun = Instant::now();
    for disk in [A, B] {
        qemus.expect_failure(disk, "error", &["qdisk: qemu has ended by itself"])?;
    }
    say(&format!("the end of QEMU was reported after {:?}", begun.elapsed()));
    assert_eq!(qemus.started().len(), 1, "guests cannot come back to another one");
    // No backend writes state 6 any more.
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
    qemus.host.image("a.img", 4)?;
    qemus.host.image("b.img", 4)?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_connected(A)?;
    qemus.host.daemon_mut()?.kill()?;
    qemus.host.daemon_mut()?.restart()?;
    qemus.attach(B, "aio:b.img", "w")?;
    qemus.expect_connected(B)?;
    assert_eq!((qemus.started().len(), qemus.running().len()), (1, 1));

    // The restarted daemon is not QEMU's parent, but notices its end all the same.
    qemus.kill(qemus.running()[0])?;
    qemus.expect_failure(A, "error", &["qemu has ended by itself"])?;
    qemus.detach(A)?;
    qemus.detach(B)?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_connected(A)?;

    // QEMU dies while the daemon is stopped, after it has connected a disk that the daemon does not know.
    qemus.host.daemon_mut()?.kill()?;
    qemus.attach(B, "aio:b.img", "w")?;
    qemus.expect(&B.node("state"), Some("2"))?;
    qemus.kill(qemus.running()[0])?;
    qemus.host.daemon_mut()?.restart()?;
    qemus.expect_failure(A, "error", &["qdisk: was lost while xenplugd was away: qemu has ended"])?;
    qemus.expect_failure(B, "error", &["qdisk: qemu, which served the device, has ended"])?;
    qemus.detach(A)?;
    qemus.detach(B)?;
    qemus.nothing_is_left()
}

#[test]
fn disk_that_qemu_does_not_take_up_fails_and_leaves_nothing() -> Result<()> {
    let mut qemus = Qemus::with("", "timeout = 1500")?;
    qemus.host.image("a.img", 4)?;
    qemus.host.image("b.qcow2", 4)?;

    // QEMU reports the reason on standard error.
    qemus.attach(B, "qcow2:b.qcow2", "w")?;
    qemus.expect_failure(B, "error", &["'qdisk' device '51728'", "Image is not in qcow2 format"])?;
    until("QEMU ends", || Ok(qemus.running().is_empty()))?;
    qemus.detach(B)?;

    // QEMU reports nothing.
    fs::write(qemus.qemu.file("never"), "")?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_failure(A, "error", &["qdisk: qemu does not serve the device after 1500 ms"])?;
    qemus.detach(A)?;
    qemus.nothing_is_left()?;

    // A disk with another format or outside of the grant starts no QEMU.
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
    qemus.host.image("a.img", 4)?;
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
    qemus.host.image("a.img", 4)?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_connected(A)?;
    qemus.detach(A)?;
    qemus.nothing_is_left()
}

#[test]
fn qemu_output_never_blocks_qemu() -> Result<()> {
    let mut qemus = Qemus::new()?;
    for image in ["a.img", "b.img"] {
        qemus.host.image(image, 4)?;
    }
    fs::write(qemus.qemu.file("chatty"), "")?;
    qemus.attach(A, "aio:a.img", "w")?;
    qemus.expect_connected(A)?;
    thread::sleep(Duration::from_secs(1));
    let log = qemus.host.daemon().context("it runs")?.log();
    ensure!(log.contains("chatter chatter"), "the output is not in the log");
    // QEMU writes 80 KB every 10 ms, and the daemon logs 64 lines each half second.
    ensure!(log.len() < 512 << 10, "the log has {} bytes", log.len());

    // Also while no daemon reads its output.
    qemus.host.daemon_mut()?.kill()?;
    thread::sleep(super::MOMENT);
    qemus.attach(B, "aio:b.img", "w")?;
    qemus.expect(&B.node("state"), Some("2"))?;
    qemus.host.daemon_mut()?.restart()?;
    let was = qemus
        .host
        .daemon()
        .context("it runs")?
        .log()
        .matches("chatter chatter")
        .count();
    until("its output is logged again", || {
        let log = qemus.host.daemon().context("it runs")?.log();
        Ok(log.matches("chatter chatter").count() > was)
    })?;
    qemus.detach(A)?;
    qemus.detach(B)?;
    qemus.nothing_is_left()
}

#[test]
fn daemon_killed_during_qemu_start_leaves_no_second_qemu() -> Result<()> {
    let mut qemus = Qemus::new()?;
    qemus.host.image("a.img", 4)?;
    qemus.host.image("b.img", 4)?;
    let mut found = BTreeSet::new();
    for phase in [0, 1, 2, 4, 8, 16, 32, 64, 128] {
        let before = qemus.started().len();
        qemus.attach(A, "aio:a.img", "w")?;
        qemus.attach(B, "aio:b.img", "w")?;
        thread::sleep(Duration::from_millis(phase));
        qemus.host.daemon_mut()?.kill()?;
        found.insert(qemus.started().len() - before);
        qemus.host.daemon_mut()?.restart()?;
        let mut store = qemus.host.connect()?;
        for disk in [A, B] {
            // If QEMU ended with its device after state 1, the daemon publishes an error, and the toolstack has to
            // recreate the device.
            let status = store.wait(&disk.node("hotplug-status"), Duration::from_secs(20), |status| {
                matches!(status, Some("connected" | "error"))
            })?;
            ensure!(status.is_ok(), "{status:?}\n{}", qemus.host.daemon_log());
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
    qemus.host.toolstack().build(3)?;
    let (raw, qcow2) = (qemus.host.image("a.img", 4)?, qemus.host.images().join("b.qcow2"));
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
        let done = qemus.host.xenplug(&words)?.output()?;
        ensure!(
            done.status.success(),
            "{what} {disk}: {done:?}\n{}",
            qemus.host.daemon_log()
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
        // QEMU has removed the directory of its disk.
        let above = qemus.host.connect()?.children("/local/domain/0/backend")?;
        assert_eq!(above, [""; 0]);
    }
    // A QEMU of the toolstack would connect the same disks.
    for its in [
        "/local/domain/3/image/device-model-pid",
        "/local/domain/0/libxl/3/qdisk-backend-pid",
    ] {
        let state = "/local/domain/0/device-model/3/state";
        let mut store = qemus.host.connect()?;
        store.write(its, "4711")?;
        store.write(state, "running")?;
        let before = qemus.started();
        let answer = ask("attach", &disk("raw", "xvda", &raw));
        let error = answer.err().context("it is attached")?.to_string();
        ensure!(
            error.contains("qdisk: qemu: the toolstack has started one for domain 3"),
            "{error}"
        );
        assert_eq!(qemus.started(), before);
        assert_eq!(
            store.find(state)?.as_deref(),
            Some("running"),
            "the node belongs to the toolstack"
        );
        store.remove(its)?;
        store.remove(state)?;
    }
    Ok(())
}
