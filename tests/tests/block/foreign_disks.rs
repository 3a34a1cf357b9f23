//! Beside originals that plug disks of their own: their lock, and who uses what.

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

/// Attaches a disk and has it plugged; `false` if it is refused as busy.
type Plug = fn(&mut TestHost, &Device, &Nodes) -> Result<bool>;

/// A block device to share: a loop device of the test's own.
fn block_device(host: &TestHost) -> Result<String> {
    let image = host.image("device.img", 4)?;
    let attached = Command::new("losetup").args(["--find", "--show"]).arg(image).output()?;
    ensure!(attached.status.success(), "{attached:?}");
    Ok(String::from_utf8(attached.stdout)?.trim().to_owned())
}

/// A host whose daemon may use the test's loop device.
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

/// By the original.
fn original(host: &mut TestHost, disk: &Device, nodes: &Nodes) -> Result<bool> {
    host.attach(disk, nodes)?;
    host.expect_state(disk, "2")?;
    if host.scripts().plug(disk).is_ok() {
        host.expect_connected(disk)?;
        return Ok(true);
    }
    assert_eq!(host.node(disk, "hotplug-status")?.as_deref(), Some("busy"));
    Ok(false)
}

/// By the daemon.
fn ours(host: &mut TestHost, disk: &Device, nodes: &Nodes) -> Result<bool> {
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
                let (plug_first, plug_second): (Plug, Plug) = if originals_first {
                    (original, ours)
                } else {
                    (ours, original)
                };
                ensure!(plug_first(&mut host, &first, &nodes(before))?, "{what}: the first");
                let got = plug_second(&mut host, &second, &nodes(after))?;
                // The original looks for a file in `losetup -a` by its device number in hexadecimal, which is decimal
                // there: of a file it sees no other user, be it plugged by us or by itself.
                let unseen = !originals_first && path == image;
                ensure!(got == (allowed || unseen), "{what}: {got}");
                take_down(&mut host, &first, originals_first)?;
                if got {
                    take_down(&mut host, &second, !originals_first)?;
                    continue;
                }
                host.toolstack().forget(&second)?;
                host.call(&second, "remove")?.answer()?;
                // Once the first has gone the second may have it.
                until("the kernel lets go", || Ok(!in_use(path, &host)?))?;
                ensure!(plug_second(&mut host, &second, &nodes(after))?, "{what}: afterwards");
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
    ensure!(original(&mut host, &first, &nodes)?);
    ensure!(ours(&mut host, &second, &nodes)?, "it is its own");
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
    ensure!(attached_below(host.directory())?.is_empty(), "it did not wait");
    lock.release()?;
    call.answer()?.done()?;
    // Another lock is no matter.
    let other = Locker::claim(&host, "iptables")?;
    let more = host.plug_disk(4, 0)?;
    other.release()?;
    // It is free again, and its file gone.
    Locker::claim(&host, "block")?.release()?;
    let left = host.namespace().command("ls").arg("/var/run/xen-hotplug").output()?;
    assert_eq!(String::from_utf8(left.stdout)?, "", "lock files that are left");
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

/// Starts strace, and waits until it is at work.
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
        // Disks that an original has plugged, as the store shows them.
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
        // The least of some: others ask the store as well, such as the played kernel for what was before.
        let ours = (0..3).map(|_| cost(&mut host, &nodes, false));
        costs.push(ours.collect::<Result<Vec<_>>>()?.into_iter().min().context("three")?);
    }
    let [original, ours, original_beside_40, ours_beside_40] = costs[..] else {
        unreachable!("four were counted");
    };
    ensure!(
        original_beside_40 > original + 40,
        "the original asks for each: {costs:?}"
    );
    ensure!(ours > 0 && ours_beside_40 <= ours + 4, "ours does not: {costs:?}");
    Ok(())
}
