//! Much at once and much in a row: nothing grows, nothing is left, and others are served meanwhile.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    harness::{Device, Disk, TestHost, attached_below},
    store::Store,
    trial::{Length, Trial, length},
};

/// How much more memory the daemon may have after much than after some: what an allocator and threads' stacks sway by.
const SWAY: u64 = 4 << 10;

/// KiB of the daemon's memory that are its own.
fn memory(machine: &TestHost) -> Result<u64> {
    Ok(machine.daemon().context("it runs")?.memory()?.0)
}

fn short_or_long(short: u32, long: u32) -> u32 {
    match length() {
        Length::Short => short,
        Length::Long => long,
    }
}

/// Disks and cards come and go: all of a batch at once, as each stays a while after it is down.
fn batch(machine: &mut TestHost, size: u32) -> Result<()> {
    let mut devices = Vec::new();
    for index in 0..size / 2 {
        devices.push(machine.attach_disk(3, index)?);
        devices.push(machine.attach_card(3, index)?);
    }
    for device in &devices {
        machine.expect_connected(device)?;
    }
    machine.end_guest(3, &devices)
}

#[test]
fn endless_attach_and_detach_leaks_nothing() -> Result<()> {
    const BATCH: u32 = 50;
    let (warm, all) = (250, short_or_long(1_000, 10_000));
    let mut machine = TestHost::with_daemon()?;
    for _ in 0..warm / BATCH {
        batch(&mut machine, BATCH)?;
    }
    let baseline = machine.baseline()?;
    let before = memory(&machine)?;
    let mut trial = Trial::default();
    for number in 0..all / BATCH {
        batch(&mut machine, BATCH).with_context(|| format!("batch {number}"))?;
    }
    baseline.assert_same(&machine)?;
    let after = memory(&machine)?;
    let grown = after.saturating_sub(before);
    trial.case(&format!("{all} devices"), {
        ensure!(grown < SWAY, "{before} KiB before and {after} after {all} devices");
        Ok(())
    });
    tell(&format!("{all} devices: {before} KiB before, {after} after"));
    trial.end()
}

#[test]
fn thousand_concurrent_devices_connect_and_leave_nothing() -> Result<()> {
    let _pool = xenplug_tests::harness::LoopPool::now()?;
    let all = short_or_long(300, 1_000);
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let mut devices = Vec::new();
    for index in 0..all {
        let guest = 3 + (index / 100) as u16;
        devices.push(machine.attach_disk(guest, index % 100)?);
    }
    for device in &devices {
        machine.expect_connected(device)?;
    }
    assert_eq!(attached_below(machine.directory())?.len(), all as usize);
    for device in &devices {
        machine.toolstack().detach(device)?;
    }
    for guest in devices.chunks(100) {
        machine.end_guest(guest[0].frontend, guest)?;
    }
    baseline.assert_same(&machine)
}

#[test]
fn endless_reconnects_keep_the_disk_and_take_no_memory() -> Result<()> {
    let rounds = short_or_long(2_000, 40_000);
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_connected(&disk)?;
    let (loops, before) = (attached_below(machine.directory())?, memory(&machine)?);
    let state = format!("{}/state", disk.backend());
    let mut store = machine.connect()?;
    for round in 0..rounds {
        // What blkback writes as its frontend goes from 1 to 6 and back.
        store.write(&state, if round % 2 == 0 { "6" } else { "2" })?;
        if round % 50 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    let good = machine.attach_disk(4, 0)?;
    machine.expect_connected(&good)?;
    machine.expect_connected(&disk)?;
    let (now, after) = (attached_below(machine.directory())?, memory(&machine)?);
    ensure!(
        loops.iter().all(|one| now.contains(one)),
        "{loops:?} before, {now:?} after"
    );
    ensure!(
        after < before + SWAY,
        "{before} KiB before and {after} after {rounds} changes"
    );
    tell(&format!("{rounds} changes: {before} KiB before, {after} after"));
    machine.end_guest(3, &[disk])?;
    machine.end_guest(4, &[good])?;
    baseline.assert_same(&machine)
}

/// A disk that the test plays the kernel for.
fn plug(machine: &mut TestHost, guest: u16) -> Result<Duration> {
    let image = machine.image(&format!("{guest}.img"), 1)?;
    let disk = Device::disk(guest, 0);
    machine.attach(&disk, &Disk::on(&image))?;
    let state = format!("{}/state", disk.backend());
    let began = Instant::now();
    machine.toolstack().store().write(&state, "2")?;
    machine.expect_status(&disk, "connected")?;
    let took = began.elapsed();
    machine.toolstack().detach(&disk)?;
    machine.toolstack().store().write(&state, "6")?;
    machine.toolstack().finish(&disk, Duration::from_secs(10))?;
    Ok(took)
}

/// The middle one of so many.
fn plugs(machine: &mut TestHost, number: u16) -> Result<Duration> {
    let mut took = (0..number)
        .map(|guest| plug(machine, 10 + guest))
        .collect::<Result<Vec<_>>>()?;
    took.sort();
    Ok(took[took.len() / 2])
}

/// Writes a node again and again until it is told to stop; how often is counted.
fn flood(mut store: Store, nodes: &[String], stop: &AtomicBool, writes: &AtomicU64) -> Result<()> {
    while !stop.load(Relaxed) {
        for node in nodes {
            store.write(node, "4")?;
            writes.fetch_add(1, Relaxed);
        }
    }
    Ok(())
}

#[test]
fn watched_node_flood_takes_no_memory_and_blocks_nobody() -> Result<()> {
    let wanted = u64::from(short_or_long(20_000, 1_000_000));
    let mut machine = TestHost::with_daemon()?;
    // It would look at each write as well, and be what others wait for.
    machine.stop_kernel();
    let baseline = machine.baseline()?;
    let image = machine.image("flooded.img", 1)?;
    let flooded = Device::disk(3, 0);
    machine.attach(&flooded, &Disk::on(&image))?;
    let node = |name: &str| format!("{}/{name}", flooded.backend());
    machine.toolstack().store().write(&node("state"), "2")?;
    machine.expect_status(&flooded, "connected")?;
    machine.toolstack().store().write(&node("state"), "4")?;
    let quiet = plugs(&mut machine, 10)?;
    let before = memory(&machine)?;

    let nodes = [node("state"), node("sectors")];
    let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    let store = machine.connect()?;
    let (loud, most) = thread::scope(|scope| -> Result<_> {
        let flooding = scope.spawn(|| flood(store, &nodes, &stop, &writes));
        let served = (|| {
            let loud = plugs(&mut machine, 10)?;
            let mut most = memory(&machine)?;
            let until = Instant::now() + Duration::from_secs(3600);
            while writes.load(Relaxed) < wanted && !flooding.is_finished() {
                ensure!(Instant::now() < until, "only {} writes", writes.load(Relaxed));
                most = most.max(memory(&machine)?);
                thread::sleep(Duration::from_millis(20));
            }
            plug(&mut machine, 9)?;
            Ok((loud, most))
        })();
        stop.store(true, Relaxed);
        flooding.join().expect("it does not panic")?;
        served
    })?;
    let writes = writes.load(Relaxed);
    tell(&format!(
        "{writes} writes: {before} KiB before, {most} at most; a plug took {quiet:?} before, {loud:?} meanwhile"
    ));
    ensure!(writes >= wanted, "only {writes} writes");
    ensure!(
        most < before + 2 * SWAY,
        "{before} KiB before and {most} with {writes} writes"
    );
    if length() == Length::Long {
        ensure!(loud < 2 * quiet, "a plug took {quiet:?} before, and {loud:?} meanwhile");
    }
    machine.toolstack().detach(&flooded)?;
    machine.toolstack().store().write(&node("state"), "6")?;
    machine.toolstack().finish(&flooded, Duration::from_secs(10))?;
    for guest in (9..20).chain([3]) {
        machine.toolstack().bury(guest)?;
    }
    baseline.assert_same(&machine)
}

#[allow(clippy::print_stdout, reason = "a figure of the run")]
fn tell(line: &str) {
    println!("{line}");
}
