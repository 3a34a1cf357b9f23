//! Original scripts that attach disks on the same host: their lock, and disks in use on either side.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Device, Disk, Locker, Nodes, TestHost, attached_below};

use super::{MOMENT, until};

/// Function that attaches a disk. Returns `false` if it is refused as busy.
type Attach = fn(&mut TestHost, &Device, &Nodes) -> Result<bool>;

/// Makes a block device to share: a loop device of the test's own.
fn block_device(host: &TestHost) -> Result<String> {
    let image = host.image("device.img", 4)?;
    let attached = Command::new("losetup").args(["--find", "--show"]).arg(image).output()?;
    ensure!(attached.status.success(), "{attached:?}");
    Ok(String::from_utf8(attached.stdout)?.trim().to_owned())
}

/// Starts a host whose daemon may use the test's loop device.
fn host_with_device() -> Result<(TestHost, String)> {
    let mut host = TestHost::new()?;
    let device = block_device(&host)?;
    let images = format!("{:?}", host.images());
    let config = host.config()?.replacing("\"driver-domain\"", "\"dom0\"").replacing(
        &format!("block = [{{ path = {images}, access = \"rw\" }}]"),
        &format!("block = [{{ path = {images}, access = \"rw\" }}, {{ path = {device:?}, access = \"rw\" }}]"),
    );
    host.start_daemon(config)?;
    Ok((host, device))
}

/// Attaches a disk by the original script.
fn by_script(host: &mut TestHost, disk: &Device, nodes: &Nodes) -> Result<bool> {
    host.attach(disk, nodes)?;
    host.expect_state(disk, "2")?;
    if host.scripts().plug(disk).is_ok() {
        host.expect_connected(disk)?;
        return Ok(true);
    }
    assert_eq!(host.node(disk, "hotplug-status")?.as_deref(), Some("busy"));
    Ok(false)
}

/// Attaches a disk by the daemon.
fn by_daemon(host: &mut TestHost, disk: &Device, nodes: &Nodes) -> Result<bool> {
    let answer = host.plug(disk, nodes)?;
    if answer.outcome == "done" {
        return Ok(true);
    }
    ensure!(answer.outcome == "failed", "{answer:?}");
    assert_eq!(
        host.node(disk, "hotplug-status")?.as_deref(),
        Some("busy"),
        "{answer:?}"
    );
    Ok(false)
}

fn take_down(host: &mut TestHost, disk: &Device, by_original: bool) -> Result<()> {
    host.toolstack().detach(disk)?;
    host.expect_state(disk, "6")?;
    if by_original {
        host.scripts().unplug(disk)?;
    } else {
        host.call(disk, "remove")?.answer()?.done()?;
    }
    host.toolstack().forget(disk)
}

#[test]
fn foreign_disk_in_use_is_busy_both_ways() -> Result<()> {
    let (mut host, device) = host_with_device()?;
    let image = host.image("shared.img", 4)?;
    let (first, second) = (Device::disk(3, 0), Device::disk(4, 0));
    for path in [Path::new(&device), &image] {
        for (before, after, allowed) in [
            ("w", "w", false),
            ("w", "r", false),
            ("r", "w", false),
            ("r", "r", true),
        ] {
            for originals_first in [true, false] {
                let what = format!(
                    "{} {before} then {after}, original first: {originals_first}",
                    path.display()
                );
                let nodes = |mode: &str| Disk::on(path).with("mode", mode);
                let (attach_first, attach_second): (Attach, Attach) = if originals_first {
                    (by_script, by_daemon)
                } else {
                    (by_daemon, by_script)
                };
                ensure!(attach_first(&mut host, &first, &nodes(before))?, "{what}: the first");
                let attached = attach_second(&mut host, &second, &nodes(after))?;
                // The original searches `losetup -a` for a file by its device number in hexadecimal, which is decimal
                // there. It thus finds no other user of a file, neither the daemon nor itself.
                let unseen = !originals_first && path == image;
                ensure!(attached == (allowed || unseen), "{what}: {attached}");
                take_down(&mut host, &first, originals_first)?;
                if attached {
                    take_down(&mut host, &second, !originals_first)?;
                    continue;
                }
                host.toolstack().forget(&second)?;
                host.call(&second, "remove")?.answer()?;
                // After the end of the first, the second can have the disk.
                until("the kernel clears the loop device", || Ok(!in_use(path, &host)?))?;
                ensure!(attach_second(&mut host, &second, &nodes(after))?, "{what}: afterwards");
                take_down(&mut host, &second, !originals_first)?;
            }
        }
    }
    host.toolstack().bury(3)?;
    host.toolstack().bury(4)
}

/// Returns true while a loop device is on an image.
fn in_use(path: &Path, host: &TestHost) -> Result<bool> {
    let loops = attached_below(host.directory())?;
    Ok(loops.iter().any(|one| Path::new(&one.backing) == path))
}

#[test]
fn one_vm_may_share_a_disk_with_itself() -> Result<()> {
    let (mut host, device) = host_with_device()?;
    let (first, second) = (Device::disk(3, 0), Device::disk(3, 1));
    let nodes = Disk::on(Path::new(&device));
    ensure!(by_script(&mut host, &first, &nodes)?);
    ensure!(by_daemon(&mut host, &second, &nodes)?, "the disk is the same guest's");
    take_down(&mut host, &second, false)?;
    take_down(&mut host, &first, true)?;
    host.toolstack().bury(3)
}

#[test]
fn attach_waits_for_the_scripts_lock_and_releases_it() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_state(&disk, "2")?;
    let lock = Locker::claim(&host, "block")?;
    let call = host.call(&disk, "add")?;
    thread::sleep(MOMENT);
    ensure!(
        attached_below(host.directory())?.is_empty(),
        "the attach did not wait for the lock"
    );
    lock.release()?;
    call.answer()?.done()?;
    // Another lock does not matter.
    let other = Locker::claim(&host, "iptables")?;
    let more = host.plug_disk(4, 0)?;
    other.release()?;
    // The lock is free again, and its file is gone.
    Locker::claim(&host, "block")?.release()?;
    let left = host.namespace().command("ls").arg("/var/run/xen-hotplug").output()?;
    assert_eq!(String::from_utf8(left.stdout)?, "", "lock files are left");
    host.end_guest_of_dom0(4, &[more])?;
    host.end_guest_of_dom0(3, &[disk])
}

#[test]
fn script_lock_held_forever_fails_attach_by_its_deadline() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_state(&disk, "2")?;
    let lock = Locker::claim(&host, "block")?;
    let begun = Instant::now();
    let answer = host.call(&disk, "add")?.answer()?;
    answer.says("failed", &["phy", "/var/run/xen-hotplug/block", "not given up"])?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    lock.release()?;
    host.call(&disk, "add")?.answer()?.done()?;
    host.end_guest_of_dom0(3, &[disk])
}

/// Counts the requests of one attach of a block device that xenstored reads, by `strace`.
fn cost(host: &mut TestHost, nodes: &Nodes, by_original: bool) -> Result<usize> {
    let disk = Device::disk(900, 0);
    host.attach(&disk, nodes)?;
    host.expect_state(&disk, "2")?;
    let trace = host.directory().join("trace");
    let mut strace = Command::new("strace");
    strace
        .args(["-qq", "-e", "trace=read,recvfrom", "-p"])
        .arg(host.xenstored().process_id().to_string())
        .arg("-o")
        .arg(&trace)
        .stderr(Stdio::null());
    let mut tracer = attached(&mut strace, &trace)?;
    if by_original {
        host.scripts().plug(&disk)?;
    } else {
        host.call(&disk, "add")?.answer()?.done()?;
    }
    let cost = finish(&mut tracer, &trace)?;
    take_down(host, &disk, by_original)?;
    host.toolstack().bury(900)?;
    Ok(cost)
}

/// Starts strace, and waits until it traces.
fn attached(strace: &mut Command, trace: &Path) -> Result<Child> {
    let tracer = strace.spawn().context("strace")?;
    until("strace is attached", || Ok(trace.exists()))?;
    thread::sleep(MOMENT);
    Ok(tracer)
}

/// Ends strace, and counts the headers of messages that xenstored has read: each is 16 bytes.
fn finish(tracer: &mut Child, trace: &Path) -> Result<usize> {
    thread::sleep(MOMENT);
    let pid = rustix::process::Pid::from_raw(tracer.id().cast_signed()).context("a process has an id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    tracer.wait()?;
    let text = fs::read_to_string(trace)?;
    fs::remove_file(trace)?;
    Ok(text
        .lines()
        .filter(|line| line.ends_with(", 16) = 16") || line.contains(", 16, 0, NULL, NULL) = 16"))
        .count())
}

#[test]
fn attach_store_cost_is_independent_of_disk_count() -> Result<()> {
    let (mut host, device) = host_with_device()?;
    let nodes = Disk::on(Path::new(&device));
    let mut costs = Vec::new();
    for disks in [0_u16, 40] {
        // Disks of an original script, as the store shows them.
        for number in 0..disks {
            let disk = Device::disk(100 + number, 0);
            host.attach(&disk, &nodes)?;
            host.expect_state(&disk, "2")?;
            let backend = disk.backend();
            let store = host.toolstack().store();
            store.write(&format!("{backend}/physical-device"), format!("fe:{number:x}"))?;
            store.write(&format!("{backend}/hotplug-status"), "connected")?;
        }
        // A new entry is read once.
        cost(&mut host, &nodes, false)?;
        costs.push(cost(&mut host, &nodes, true)?);
        // The minimum of several: other clients use the store as well, such as the played kernel.
        let by_daemon = (0..3).map(|_| cost(&mut host, &nodes, false));
        costs.push(
            by_daemon
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .min()
                .context("three")?,
        );
    }
    let [by_script, by_daemon, by_script_beside_40, by_daemon_beside_40] = costs[..] else {
        unreachable!("four were counted");
    };
    ensure!(
        by_script_beside_40 > by_script + 40,
        "the original reads the nodes of each disk: {costs:?}"
    );
    ensure!(
        by_daemon > 0 && by_daemon_beside_40 <= by_daemon + 4,
        "the daemon reads the nodes of each disk: {costs:?}"
    );
    Ok(())
}
