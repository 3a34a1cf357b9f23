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
fn block_device(machine: &TestHost) -> Result<String> {
    let image = machine.image("device.img", 4)?;
    let attached = Command::new("losetup").args(["--find", "--show"]).arg(image).output()?;
    ensure!(attached.status.success(), "{attached:?}");
    Ok(String::from_utf8(attached.stdout)?.trim().to_owned())
}

/// A machine whose daemon may use the test's loop device.
fn machine_with_device() -> Result<(TestHost, String)> {
    let mut machine = TestHost::new()?;
    let device = block_device(&machine)?;
    let images = format!("{:?}", machine.images());
    let config = machine.config()?.replacing("\"driver-domain\"", "\"dom0\"").replacing(
        &format!("block = [{{ path = {images}, access = \"rw\" }}]"),
        &format!("block = [{{ path = {images}, access = \"rw\" }}, {{ path = {device:?}, access = \"rw\" }}]"),
    );
    machine.start_daemon(config)?;
    Ok((machine, device))
}

/// By the original.
fn original(machine: &mut TestHost, disk: &Device, nodes: &Nodes) -> Result<bool> {
    machine.attach(disk, nodes)?;
    machine.expect_state(disk, "2")?;
    if machine.scripts().plug(disk).is_ok() {
        machine.expect_connected(disk)?;
        return Ok(true);
    }
    assert_eq!(machine.node(disk, "hotplug-status")?.as_deref(), Some("busy"));
    Ok(false)
}

/// By the daemon.
fn ours(machine: &mut TestHost, disk: &Device, nodes: &Nodes) -> Result<bool> {
    let answer = machine.plug(disk, nodes)?;
    if answer.outcome == "done" {
        return Ok(true);
    }
    ensure!(answer.outcome == "failed", "{answer:?}");
    assert_eq!(
        machine.node(disk, "hotplug-status")?.as_deref(),
        Some("busy"),
        "{answer:?}"
    );
    Ok(false)
}

fn take_down(machine: &mut TestHost, disk: &Device, by_original: bool) -> Result<()> {
    machine.toolstack().detach(disk)?;
    machine.expect_state(disk, "6")?;
    if by_original {
        machine.scripts().unplug(disk)?;
    } else {
        machine.call(disk, "remove")?.answer()?.done()?;
    }
    machine.toolstack().forget(disk)
}

#[test]
fn foreign_disk_in_use_is_busy_both_ways() -> Result<()> {
    let (mut machine, device) = machine_with_device()?;
    let image = machine.image("shared.img", 4)?;
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
                ensure!(plug_first(&mut machine, &first, &nodes(before))?, "{what}: the first");
                let got = plug_second(&mut machine, &second, &nodes(after))?;
                // The original looks for a file in `losetup -a` by its device number in hexadecimal, which is decimal
                // there: of a file it sees no other user, be it plugged by us or by itself.
                let unseen = !originals_first && path == image;
                ensure!(got == (allowed || unseen), "{what}: {got}");
                take_down(&mut machine, &first, originals_first)?;
                if got {
                    take_down(&mut machine, &second, !originals_first)?;
                    continue;
                }
                machine.toolstack().forget(&second)?;
                machine.call(&second, "remove")?.answer()?;
                // Once the first has gone the second may have it.
                until("the kernel lets go", || Ok(!in_use(path, &machine)?))?;
                ensure!(plug_second(&mut machine, &second, &nodes(after))?, "{what}: afterwards");
                take_down(&mut machine, &second, !originals_first)?;
            }
        }
    }
    machine.toolstack().bury(3)?;
    machine.toolstack().bury(4)
}

/// Whether a loop device is on an image still.
fn in_use(path: &Path, machine: &TestHost) -> Result<bool> {
    let loops = attached_below(machine.directory())?;
    Ok(loops.iter().any(|one| Path::new(&one.backing) == path))
}

#[test]
fn one_vm_may_share_a_disk_with_itself() -> Result<()> {
    let (mut machine, device) = machine_with_device()?;
    let (first, second) = (Device::disk(3, 0), Device::disk(3, 1));
    let nodes = Disk::on(Path::new(&device));
    ensure!(original(&mut machine, &first, &nodes)?);
    ensure!(ours(&mut machine, &second, &nodes)?, "it is its own");
    take_down(&mut machine, &second, false)?;
    take_down(&mut machine, &first, true)?;
    machine.toolstack().bury(3)
}

#[test]
fn attach_waits_for_the_scripts_lock_and_releases_it() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_state(&disk, "2")?;
    let lock = Locker::claim(&machine, "block")?;
    let call = machine.call(&disk, "add")?;
    thread::sleep(MOMENT);
    ensure!(attached_below(machine.directory())?.is_empty(), "it did not wait");
    lock.release()?;
    call.answer()?.done()?;
    // Another lock is no matter.
    let other = Locker::claim(&machine, "iptables")?;
    let more = machine.plug_disk(4, 0)?;
    other.release()?;
    // It is free again, and its file gone.
    Locker::claim(&machine, "block")?.release()?;
    let left = machine.namespace().command("ls").arg("/var/run/xen-hotplug").output()?;
    assert_eq!(String::from_utf8(left.stdout)?, "", "lock files that are left");
    machine.end_guest_of_dom0(4, &[more])?;
    machine.end_guest_of_dom0(3, &[disk])
}

#[test]
fn script_lock_held_forever_fails_attach_by_its_deadline() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_state(&disk, "2")?;
    let lock = Locker::claim(&machine, "block")?;
    let begun = Instant::now();
    let answer = machine.call(&disk, "add")?.answer()?;
    answer.says("failed", &["phy", "/var/run/xen-hotplug/block", "not given up"])?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    lock.release()?;
    machine.call(&disk, "add")?.answer()?.done()?;
    machine.end_guest_of_dom0(3, &[disk])
}

/// How many requests xenstored is asked for one plug of a block device, as `strace` sees it read them.
fn cost(machine: &mut TestHost, nodes: &Nodes, by_original: bool) -> Result<usize> {
    let disk = Device::disk(900, 0);
    machine.attach(&disk, nodes)?;
    machine.expect_state(&disk, "2")?;
    let trace = machine.directory().join("trace");
    let mut strace = Command::new("strace");
    machine.rig().equip(&mut strace);
    strace
        .args(["-qq", "-e", "trace=read,recvfrom", "-p"])
        .arg(machine.xenstored().process_id().to_string())
        .arg("-o")
        .arg(&trace)
        .stderr(Stdio::null());
    let mut tracer = attached(&mut strace, &trace)?;
    if by_original {
        machine.scripts().plug(&disk)?;
    } else {
        machine.call(&disk, "add")?.answer()?.done()?;
    }
    let cost = finish(&mut tracer, &trace)?;
    take_down(machine, &disk, by_original)?;
    machine.toolstack().bury(900)?;
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
    let (mut machine, device) = machine_with_device()?;
    let nodes = Disk::on(Path::new(&device));
    let mut costs = Vec::new();
    for disks in [0_u16, 40] {
        // Disks that an original has plugged, as the store shows them.
        for number in 0..disks {
            let disk = Device::disk(100 + number, 0);
            machine.attach(&disk, &nodes)?;
            machine.expect_state(&disk, "2")?;
            let backend = disk.backend();
            let store = machine.toolstack().store();
            store.write(&format!("{backend}/physical-device"), format!("fe:{number:x}"))?;
            store.write(&format!("{backend}/hotplug-status"), "connected")?;
        }
        // What is new is read once.
        cost(&mut machine, &nodes, false)?;
        costs.push(cost(&mut machine, &nodes, true)?);
        // The least of some: others ask the store as well, such as the played kernel for what was before.
        let ours = (0..3).map(|_| cost(&mut machine, &nodes, false));
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
