//! The daemon is killed, and the store: what was connected stays, what has gone is cleaned, and nothing is left.

mod suspension;

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, OpenOptionsExt},
    panic::resume_unwind,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    harness::{Device, Disk, TestHost, attached_below},
    trial::{Length, length},
};

/// How soon after the store is back all has to be as the store says.
const RESYNC: Duration = Duration::from_secs(5);

/// A guest with a disk and a card, connected.
fn plugged(machine: &mut TestHost, guest: u16) -> Result<[Device; 2]> {
    let devices = [machine.attach_disk(guest, 0)?, machine.attach_card(guest, 0)?];
    for device in &devices {
        machine.expect_connected(device)?;
    }
    Ok(devices)
}

#[test]
fn connected_devices_survive_daemon_kill_and_restart() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let devices = plugged(&mut machine, 3)?;
    let loops = attached_below(machine.directory())?;
    let link = machine.namespace().link(&devices[1].link())?.context("no link")?;

    machine.daemon_mut()?.kill()?;
    assert_eq!(
        attached_below(machine.directory())?,
        loops,
        "blkback holds the loop device"
    );
    machine.daemon_mut()?.restart()?;
    thread::sleep(Duration::from_millis(300));
    assert_eq!(attached_below(machine.directory())?, loops);
    assert_eq!(
        machine.namespace().link(&devices[1].link())?.context("no link")?["ifindex"],
        link["ifindex"]
    );
    assert_eq!(machine.namespace().ports("xenbr0")?, [devices[1].link()]);
    for device in &devices {
        assert_eq!(machine.node(device, "hotplug-status")?.as_deref(), Some("connected"));
        assert_eq!(machine.node(device, "state")?.as_deref(), Some("4"));
    }
    machine.end_guest(3, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn connected_devices_survive_an_orderly_daemon_stop() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let devices = plugged(&mut machine, 3)?;
    let status = machine.daemon_mut()?.terminate()?;
    ensure!(status.success(), "{status}\n{}", machine.daemon_log());
    assert_eq!(attached_below(machine.directory())?.len(), 1);
    assert_eq!(machine.namespace().ports("xenbr0")?, [devices[1].link()]);
    machine.daemon_mut()?.restart()?;
    machine.end_guest(3, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn devices_removed_during_downtime_are_reclaimed_at_start() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let devices = plugged(&mut machine, 3)?;
    machine.daemon_mut()?.kill()?;
    for device in &devices {
        machine.toolstack().detach(device)?;
        machine.expect_state(device, "6")?;
    }
    machine.daemon_mut()?.restart()?;
    machine.end_guest(3, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn devices_added_during_downtime_connect_at_start() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    machine.daemon_mut()?.kill()?;
    let devices = [machine.attach_disk(3, 0)?, machine.attach_card(3, 0)?];
    machine.daemon_mut()?.restart()?;
    for device in &devices {
        machine.expect_connected(device)?;
    }
    machine.end_guest(3, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn daemon_killed_during_fifty_attaches_connects_all() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    for round in 0..5 {
        let mut devices = Vec::new();
        for index in 0..25 {
            devices.push(machine.attach_disk(3, index)?);
            devices.push(machine.attach_card(3, index)?);
        }
        thread::sleep(Duration::from_millis(3 * round));
        machine.daemon_mut()?.kill()?;
        machine.daemon_mut()?.restart()?;
        for device in &devices {
            machine.expect_connected(device)?;
        }
        for device in &devices {
            machine.toolstack().detach(device)?;
        }
        thread::sleep(Duration::from_millis(3 * round));
        machine.daemon_mut()?.kill()?;
        machine.daemon_mut()?.restart()?;
        machine.end_guest(3, &devices)?;
    }
    baseline.assert_same(&machine)
}

#[test]
fn restarted_store_is_served_again() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    plugged(&mut machine, 3)?;
    machine.xenstored_mut().kill()?;
    machine.xenstored_mut().restart()?;
    machine.reconnect()?;
    let back = Instant::now();
    let devices = plugged(&mut machine, 4)?;
    ensure!(back.elapsed() < RESYNC, "served after {:?}", back.elapsed());
    machine.end_guest(4, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn live_updated_store_is_served_as_before() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let mut devices = plugged(&mut machine, 3)?.to_vec();
    for index in 1..4 {
        // At any moment of what the daemon does with it.
        devices.push(machine.attach_disk(3, index)?);
        devices.push(machine.attach_card(3, index)?);
        machine.xenstored().live_update()?;
        let back = Instant::now();
        for device in &devices {
            machine.expect_connected(device)?;
        }
        ensure!(back.elapsed() < RESYNC, "served after {:?}", back.elapsed());
    }
    machine.end_guest(3, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn stalled_store_is_waited_for() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let devices = [machine.attach_disk(3, 0)?, machine.attach_card(3, 0)?];
    machine.xenstored().stall()?;
    // At length, longer than the daemon waits for an answer: its connection counts as dead then.
    thread::sleep(match length() {
        Length::Short => Duration::from_secs(2),
        Length::Long => Duration::from_secs(25),
    });
    machine.xenstored().resume()?;
    let back = Instant::now();
    for device in &devices {
        machine.expect_connected(device)?;
    }
    ensure!(back.elapsed() < RESYNC, "served after {:?}", back.elapsed());
    machine.end_guest(3, &devices)?;
    baseline.assert_same(&machine)
}

/// Writes blocks and reads them again, past all caches, until told to stop. How many.
fn use_disk(disk: &File, stopped: impl Fn() -> bool) -> Result<u64> {
    // O_DIRECT wants memory that begins with a block.
    let mut memory = vec![0_u8; 3 * 4096];
    let begin = memory.as_ptr().align_offset(4096);
    let (mut count, block) = (0, &mut memory[begin..begin + 4096]);
    while !stopped() {
        let (mark, at) = ((count % 251) as u8, count % 64 * 4096);
        block.fill(mark);
        disk.write_all_at(block, at).context("writing")?;
        block.fill(0);
        disk.read_exact_at(block, at).context("reading")?;
        ensure!(
            block.iter().all(|byte| *byte == mark),
            "block {count} was not read as it was written"
        );
        count += 1;
    }
    Ok(count)
}

#[test]
fn disk_io_and_links_continue_across_daemon_restarts() -> Result<()> {
    const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let devices = plugged(&mut machine, 3)?;
    let path = machine.node(&devices[0], "node")?.context("no node")?;
    let disk = File::options()
        .read(true)
        .write(true)
        .custom_flags(O_DIRECT)
        .open(path)?;
    let told = machine.directory().join("links");
    let mut monitor = machine.namespace().command("ip");
    let mut monitor = monitor
        .args(["-o", "monitor", "link"])
        .stdout(File::create(&told)?)
        .stdin(Stdio::null())
        .spawn()?;
    let stop = AtomicBool::new(false);
    let used = thread::scope(|scope| -> Result<u64> {
        let using = scope.spawn(|| use_disk(&disk, || stop.load(Relaxed)));
        let mut restarts = || -> Result<()> {
            for _ in 0..3 {
                machine.daemon_mut()?.kill()?;
                machine.daemon_mut()?.restart()?;
                let ended = machine.daemon_mut()?.terminate()?;
                ensure!(ended.success(), "{ended}");
                machine.daemon_mut()?.restart()?;
            }
            Ok(())
        };
        let restarted = restarts();
        stop.store(true, Relaxed);
        let used = using.join().unwrap_or_else(|panic| resume_unwind(panic));
        restarted.and(used)
    });
    // A change that it surely tells of, to know that it would have told of others.
    let renamed = machine.namespace().ip("link add mark0 type bridge");
    let until = Instant::now() + RESYNC;
    while !fs::read_to_string(&told)?.contains("mark0") && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    monitor.kill()?;
    monitor.wait()?;
    renamed?;
    let told = fs::read_to_string(&told)?;
    ensure!(told.contains("mark0"), "`ip monitor` did not tell of mark0: {told}");
    ensure!(!told.contains(&devices[1].link()), "the link was changed: {told}");
    ensure!(used? > 0, "the disk was not used");
    drop(disk);
    machine.namespace().ip("link delete mark0")?;
    machine.end_guest(3, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn device_fails_while_the_journal_is_full_and_then_connects() -> Result<()> {
    let mut machine = TestHost::new()?;
    let config = machine.config()?;
    let journal = config.run_directory().join("journal");
    fs::create_dir_all(&journal)?;
    let run = |machine: &TestHost, program: &str, words: &[&str]| -> Result<bool> {
        let mut command = machine.namespace().command(program);
        let done = command.args(words).arg(&journal).stderr(Stdio::null()).status()?;
        Ok(done.success())
    };
    ensure!(
        run(&machine, "mount", &["-t", "tmpfs", "-o", "size=16k,mode=700", "small"])?,
        "mount"
    );
    machine.start_daemon(config)?;
    let baseline = machine.baseline()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_connected(&disk)?;
    // It ends with an error as soon as there is no room.
    ensure!(
        !run(&machine, "sh", &["-c", "cat /dev/zero >$0/full"])?,
        "the file system does not end"
    );
    let refused = [machine.attach_disk(3, 1)?, machine.attach_card(3, 1)?];
    for device in &refused {
        machine.expect_failure(device, "error", &["journal", "No space left"])?;
    }
    assert_eq!(attached_below(machine.directory())?.len(), 1);
    // What was plugged before can go all the same.
    machine.detach(&disk)?;
    ensure!(run(&machine, "sh", &["-c", "rm $0/full"])?, "rm");
    for device in &refused {
        machine.detach(device)?;
    }
    let image = machine.images().join("3-1.img");
    machine.attach(&refused[0], &Disk::on(&image))?;
    machine.expect_connected(&refused[0])?;
    machine.end_guest(3, &refused[..1])?;
    baseline.assert_same(&machine)
}
