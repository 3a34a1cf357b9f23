//! Load: many devices at once and in a row. Nothing grows, nothing is left, and other guests are served meanwhile.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    cases::{Cases, Length, length},
    harness::{Device, Disk, TestHost, attached_below},
    store::Store,
};

/// Growth of the daemon's memory that the allocator and the stacks of threads explain, in KiB.
const MEMORY_TOLERANCE: u64 = 4 << 10;

/// Returns the daemon's private memory in KiB.
fn memory(host: &TestHost) -> Result<u64> {
    Ok(host.daemon().context("it runs")?.memory()?.0)
}

fn short_or_long(short: u32, long: u32) -> u32 {
    match length() {
        Length::Short => short,
        Length::Long => long,
    }
}

/// Attaches and detaches disks and vifs in batches, because each device stays a while after its end.
fn batch(host: &mut TestHost, size: u32) -> Result<()> {
    let mut devices = Vec::new();
    for index in 0..size / 2 {
        devices.push(host.attach_disk(3, index)?);
        devices.push(host.attach_vif(3, index)?);
    }
    for device in &devices {
        host.expect_connected(device)?;
    }
    host.end_guest(3, &devices)
}

#[test]
fn endless_attach_and_detach_leaks_nothing() -> Result<()> {
    const BATCH: u32 = 50;
    let (warm, all) = (250, short_or_long(1_000, 10_000));
    let mut host = TestHost::with_daemon()?;
    for _ in 0..warm / BATCH {
        batch(&mut host, BATCH)?;
    }
    let baseline = host.baseline()?;
    let before = memory(&host)?;
    let mut cases = Cases::default();
    for number in 0..all / BATCH {
        batch(&mut host, BATCH).with_context(|| format!("batch {number}"))?;
    }
    baseline.assert_same(&host)?;
    let after = memory(&host)?;
    let grown = after.saturating_sub(before);
    cases.case(&format!("{all} devices"), {
        ensure!(
            grown < MEMORY_TOLERANCE,
            "{before} KiB before and {after} after {all} devices"
        );
        Ok(())
    });
    tell(&format!("{all} devices: {before} KiB before, {after} after"));
    cases.end()
}

#[test]
fn thousand_concurrent_devices_connect_and_leave_nothing() -> Result<()> {
    let _pool = xenplug_tests::harness::LoopPool::now()?;
    let all = short_or_long(300, 1_000);
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let mut devices = Vec::new();
    for index in 0..all {
        let guest = 3 + (index / 100) as u16;
        devices.push(host.attach_disk(guest, index % 100)?);
    }
    for device in &devices {
        host.expect_connected(device)?;
    }
    assert_eq!(attached_below(host.directory())?.len(), all as usize);
    for device in &devices {
        host.toolstack().detach(device)?;
    }
    for guest in devices.chunks(100) {
        host.end_guest(guest[0].frontend, guest)?;
    }
    baseline.assert_same(&host)
}

#[test]
fn endless_reconnects_keep_the_disk_and_take_no_memory() -> Result<()> {
    let rounds = short_or_long(2_000, 40_000);
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_connected(&disk)?;
    let (loops, before) = (attached_below(host.directory())?, memory(&host)?);
    let state = format!("{}/state", disk.backend());
    let mut store = host.connect()?;
    for round in 0..rounds {
        // The states that blkback writes as its frontend goes from 1 to 6 and back.
        store.write(&state, if round % 2 == 0 { "6" } else { "2" })?;
        if round % 50 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    let good = host.attach_disk(4, 0)?;
    host.expect_connected(&good)?;
    host.expect_connected(&disk)?;
    let (now, after) = (attached_below(host.directory())?, memory(&host)?);
    ensure!(
        loops.iter().all(|one| now.contains(one)),
        "{loops:?} before, {now:?} after"
    );
    ensure!(
        after < before + MEMORY_TOLERANCE,
        "{before} KiB before and {after} after {rounds} changes"
    );
    tell(&format!("{rounds} changes: {before} KiB before, {after} after"));
    host.end_guest(3, &[disk])?;
    host.end_guest(4, &[good])?;
    baseline.assert_same(&host)
}

/// Attaches and detaches a disk, for which the test plays the kernel. Returns the time of the attach.
fn time_attach(host: &mut TestHost, guest: u16) -> Result<Duration> {
    let image = host.image(&format!("{guest}.img"), 1)?;
    let disk = Device::disk(guest, 0);
    host.attach(&disk, &Disk::on(&image))?;
    let state = format!("{}/state", disk.backend());
    let began = Instant::now();
    host.toolstack().store().write(&state, "2")?;
    host.expect_status(&disk, "connected")?;
    let took = began.elapsed();
    host.toolstack().detach(&disk)?;
    host.toolstack().store().write(&state, "6")?;
    host.toolstack().finish(&disk, Duration::from_secs(10))?;
    Ok(took)
}

/// Returns the median time of this number of attaches.
fn median_attach_time(host: &mut TestHost, number: u16) -> Result<Duration> {
    let mut took = (0..number)
        .map(|guest| time_attach(host, 10 + guest))
        .collect::<Result<Vec<_>>>()?;
    took.sort();
    Ok(took[took.len() / 2])
}

/// Writes a node until it is stopped, and counts the writes.
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
    let mut host = TestHost::with_daemon()?;
    // The played kernel would read after each write as well, and slow down the test.
    host.stop_kernel();
    let baseline = host.baseline()?;
    let image = host.image("flooded.img", 1)?;
    let flooded = Device::disk(3, 0);
    host.attach(&flooded, &Disk::on(&image))?;
    let node = |name: &str| format!("{}/{name}", flooded.backend());
    host.toolstack().store().write(&node("state"), "2")?;
    host.expect_status(&flooded, "connected")?;
    host.toolstack().store().write(&node("state"), "4")?;
    let quiet = median_attach_time(&mut host, 10)?;
    let before = memory(&host)?;

    let nodes = [node("state"), node("sectors")];
    let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    let store = host.connect()?;
    let (loud, most) = thread::scope(|scope| -> Result<_> {
        let flooding = scope.spawn(|| flood(store, &nodes, &stop, &writes));
        let served = (|| {
            let loud = median_attach_time(&mut host, 10)?;
            let mut most = memory(&host)?;
            let until = Instant::now() + Duration::from_secs(3600);
            while writes.load(Relaxed) < wanted && !flooding.is_finished() {
                ensure!(Instant::now() < until, "only {} writes", writes.load(Relaxed));
                most = most.max(memory(&host)?);
                thread::sleep(Duration::from_millis(20));
            }
            time_attach(&mut host, 9)?;
            Ok((loud, most))
        })();
        stop.store(true, Relaxed);
        flooding.join().expect("it does not panic")?;
        served
    })?;
    let writes = writes.load(Relaxed);
    tell(&format!(
        "{writes} writes: {before} KiB before, {most} at most; an attach took {quiet:?} before, {loud:?} meanwhile"
    ));
    ensure!(writes >= wanted, "only {writes} writes");
    ensure!(
        most < before + 2 * MEMORY_TOLERANCE,
        "{before} KiB before and {most} with {writes} writes"
    );
    if length() == Length::Long {
        ensure!(
            loud < 2 * quiet,
            "an attach took {quiet:?} before, and {loud:?} meanwhile"
        );
    }
    host.toolstack().detach(&flooded)?;
    host.toolstack().store().write(&node("state"), "6")?;
    host.toolstack().finish(&flooded, Duration::from_secs(10))?;
    for guest in (9..20).chain([3]) {
        host.toolstack().bury(guest)?;
    }
    baseline.assert_same(&host)
}

#[allow(clippy::print_stdout, reason = "a figure of the run")]
fn tell(line: &str) {
    println!("{line}");
}
