//! Crashes of daemon and store: connected devices stay, removed ones are reclaimed, and nothing is left.

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
    cases::{Length, length},
    harness::{Device, Disk, TestHost, attached_below},
};

/// Time after the store's return within which everything matches the store.
const RESYNC: Duration = Duration::from_secs(5);

/// Makes a guest with a connected disk and vif.
fn connected_guest(host: &mut TestHost, guest: u16) -> Result<[Device; 2]> {
    let devices = [host.attach_disk(guest, 0)?, host.attach_vif(guest, 0)?];
    for device in &devices {
        host.expect_connected(device)?;
    }
    Ok(devices)
}

#[test]
fn connected_devices_survive_daemon_kill_and_restart() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let devices = connected_guest(&mut host, 3)?;
    let loops = attached_below(host.directory())?;
    let link = host.namespace().link(&devices[1].link())?.context("no link")?;

    host.daemon_mut()?.kill()?;
    assert_eq!(
        attached_below(host.directory())?,
        loops,
        "blkback holds the loop device"
    );
    host.daemon_mut()?.restart()?;
    thread::sleep(Duration::from_millis(300));
    assert_eq!(attached_below(host.directory())?, loops);
    assert_eq!(
        host.namespace().link(&devices[1].link())?.context("no link")?["ifindex"],
        link["ifindex"]
    );
    assert_eq!(host.namespace().ports("xenbr0")?, [devices[1].link()]);
    for device in &devices {
        assert_eq!(host.node(device, "hotplug-status")?.as_deref(), Some("connected"));
        assert_eq!(host.node(device, "state")?.as_deref(), Some("4"));
    }
    host.end_guest(3, &devices)?;
    baseline.assert_same(&host)
}

#[test]
fn connected_devices_survive_an_orderly_daemon_stop() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let devices = connected_guest(&mut host, 3)?;
    let status = host.daemon_mut()?.terminate()?;
    ensure!(status.success(), "{status}\n{}", host.daemon_log());
    assert_eq!(attached_below(host.directory())?.len(), 1);
    assert_eq!(host.namespace().ports("xenbr0")?, [devices[1].link()]);
    host.daemon_mut()?.restart()?;
    host.end_guest(3, &devices)?;
    baseline.assert_same(&host)
}

#[test]
fn devices_removed_during_downtime_are_reclaimed_at_start() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let devices = connected_guest(&mut host, 3)?;
    host.daemon_mut()?.kill()?;
    for device in &devices {
        host.toolstack().detach(device)?;
        host.expect_state(device, "6")?;
    }
    host.daemon_mut()?.restart()?;
    host.end_guest(3, &devices)?;
    baseline.assert_same(&host)
}

#[test]
fn devices_added_during_downtime_connect_at_start() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    host.daemon_mut()?.kill()?;
    let devices = [host.attach_disk(3, 0)?, host.attach_vif(3, 0)?];
    host.daemon_mut()?.restart()?;
    for device in &devices {
        host.expect_connected(device)?;
    }
    host.end_guest(3, &devices)?;
    baseline.assert_same(&host)
}

#[test]
fn daemon_killed_during_fifty_attaches_connects_all() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    for round in 0..5 {
        let mut devices = Vec::new();
        for index in 0..25 {
            devices.push(host.attach_disk(3, index)?);
            devices.push(host.attach_vif(3, index)?);
        }
        thread::sleep(Duration::from_millis(3 * round));
        host.daemon_mut()?.kill()?;
        host.daemon_mut()?.restart()?;
        for device in &devices {
            host.expect_connected(device)?;
        }
        for device in &devices {
            host.toolstack().detach(device)?;
        }
        thread::sleep(Duration::from_millis(3 * round));
        host.daemon_mut()?.kill()?;
        host.daemon_mut()?.restart()?;
        host.end_guest(3, &devices)?;
    }
    baseline.assert_same(&host)
}

#[test]
fn restarted_store_is_served_again() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    connected_guest(&mut host, 3)?;
    host.xenstored_mut().kill()?;
    host.xenstored_mut().restart()?;
    host.reconnect()?;
    let back = Instant::now();
    let devices = connected_guest(&mut host, 4)?;
    ensure!(back.elapsed() < RESYNC, "served after {:?}", back.elapsed());
    host.end_guest(4, &devices)?;
    baseline.assert_same(&host)
}

#[test]
fn live_updated_store_is_served_as_before() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let mut devices = connected_guest(&mut host, 3)?.to_vec();
    for index in 1..4 {
        // The delay puts the kill at any step of the attach.
        devices.push(host.attach_disk(3, index)?);
        devices.push(host.attach_vif(3, index)?);
        host.xenstored().live_update()?;
        let back = Instant::now();
        for device in &devices {
            host.expect_connected(device)?;
        }
        ensure!(back.elapsed() < RESYNC, "served after {:?}", back.elapsed());
    }
    host.end_guest(3, &devices)?;
    baseline.assert_same(&host)
}

#[test]
fn stalled_store_is_waited_for() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let devices = [host.attach_disk(3, 0)?, host.attach_vif(3, 0)?];
    host.xenstored().stall()?;
    // In long runs the pause exceeds the daemon's deadline for a reply, so that it connects again.
    thread::sleep(match length() {
        Length::Short => Duration::from_secs(2),
        Length::Long => Duration::from_secs(25),
    });
    host.xenstored().resume()?;
    let back = Instant::now();
    for device in &devices {
        host.expect_connected(device)?;
    }
    ensure!(back.elapsed() < RESYNC, "served after {:?}", back.elapsed());
    host.end_guest(3, &devices)?;
    baseline.assert_same(&host)
}

/// Writes blocks and reads them again past all caches until stopped, and returns how many.
fn use_disk(disk: &File, stopped: impl Fn() -> bool) -> Result<u64> {
    // O_DIRECT needs memory that is aligned to a block.
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
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let devices = connected_guest(&mut host, 3)?;
    let path = host.node(&devices[0], "node")?.context("no node")?;
    let disk = File::options()
        .read(true)
        .write(true)
        .custom_flags(O_DIRECT)
        .open(path)?;
    let link_log = host.directory().join("links");
    let mut monitor = host.namespace().command("ip");
    let mut monitor = monitor
        .args(["-o", "monitor", "link"])
        .stdout(File::create(&link_log)?)
        .stdin(Stdio::null())
        .spawn()?;
    let stop = AtomicBool::new(false);
    let used = thread::scope(|scope| -> Result<u64> {
        let using = scope.spawn(|| use_disk(&disk, || stop.load(Relaxed)));
        let mut restarts = || -> Result<()> {
            for _ in 0..3 {
                host.daemon_mut()?.kill()?;
                host.daemon_mut()?.restart()?;
                let ended = host.daemon_mut()?.terminate()?;
                ensure!(ended.success(), "{ended}");
                host.daemon_mut()?.restart()?;
            }
            Ok(())
        };
        let restarted = restarts();
        stop.store(true, Relaxed);
        let used = using.join().unwrap_or_else(|panic| resume_unwind(panic));
        restarted.and(used)
    });
    // A change that is certainly reported. Once it is, other changes would have been reported too.
    let renamed = host.namespace().ip("link add mark0 type bridge");
    let until = Instant::now() + RESYNC;
    while !fs::read_to_string(&link_log)?.contains("mark0") && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    monitor.kill()?;
    monitor.wait()?;
    renamed?;
    let link_log = fs::read_to_string(&link_log)?;
    ensure!(
        link_log.contains("mark0"),
        "`ip monitor` does not show mark0: {link_log}"
    );
    ensure!(
        !link_log.contains(&devices[1].link()),
        "the link was changed: {link_log}"
    );
    ensure!(used? > 0, "the disk was not used");
    drop(disk);
    host.namespace().ip("link delete mark0")?;
    host.end_guest(3, &devices)?;
    baseline.assert_same(&host)
}

#[test]
fn device_fails_while_the_journal_is_full_and_then_connects() -> Result<()> {
    let mut host = TestHost::new()?;
    let config = host.config()?;
    let journal = config.run_directory().join("journal");
    fs::create_dir_all(&journal)?;
    let run = |host: &TestHost, program: &str, words: &[&str]| -> Result<bool> {
        let mut command = host.namespace().command(program);
        let done = command.args(words).arg(&journal).stderr(Stdio::null()).status()?;
        Ok(done.success())
    };
    ensure!(
        run(&host, "mount", &["-t", "tmpfs", "-o", "size=16k,mode=700", "small"])?,
        "mount"
    );
    host.start_daemon(config)?;
    let baseline = host.baseline()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_connected(&disk)?;
    // cat ends with an error once the file system is full.
    ensure!(
        !run(&host, "sh", &["-c", "cat /dev/zero >$0/full"])?,
        "the file system does not fill up"
    );
    let refused = [host.attach_disk(3, 1)?, host.attach_vif(3, 1)?];
    for device in &refused {
        host.expect_failure(device, "error", &["journal", "No space left"])?;
    }
    assert_eq!(attached_below(host.directory())?.len(), 1);
    // Devices that were attached before can still be detached.
    host.detach(&disk)?;
    ensure!(run(&host, "sh", &["-c", "rm $0/full"])?, "rm");
    for device in &refused {
        host.detach(device)?;
    }
    let image = host.images().join("3-1.img");
    host.attach(&refused[0], &Disk::on(&image))?;
    host.expect_connected(&refused[0])?;
    host.end_guest(3, &refused[..1])?;
    baseline.assert_same(&host)
}
