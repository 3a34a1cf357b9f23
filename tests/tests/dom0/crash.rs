//! Crashes of daemon and store during a script call. The call is answered or its connection breaks, and nothing is
//! left.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Device, TestHost, attached_below};

use super::{MOMENT, expect_nothing_attached, write};

#[test]
fn daemon_killed_during_add_fails_the_script_and_libxl_cleans() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    for delay in 0..12 {
        let devices = [host.attach_disk(3, 0)?, host.attach_vif(3, 0)?];
        for device in &devices {
            host.expect_state(device, "2")?;
        }
        let calls = [host.call(&devices[0], "add")?, host.call(&devices[1], "add")?];
        thread::sleep(Duration::from_micros(400 * delay));
        host.daemon_mut()?.kill()?;
        let answers = calls.map(|call| call.answer());
        host.daemon_mut()?.restart()?;
        for (device, answer) in devices.iter().zip(answers) {
            match answer {
                // The script succeeded, so the device is connected.
                Ok(answer) => {
                    answer.done()?;
                    host.expect_connected(device)?;
                }
                // libxl detaches the device, whatever its state.
                Err(_) => {
                    let status = host.node(device, "hotplug-status")?.unwrap_or_default();
                    ensure!(matches!(&*status, "" | "connected"), "{status}");
                }
            }
            host.unplug(device)?.done()?;
        }
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn daemon_killed_during_remove_is_finished_by_its_successor() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    for delay in 0..20 {
        let devices = [host.plug_disk(3, 0)?, host.plug_vif(3, 0)?];
        for device in &devices {
            host.expect_connected(device)?;
        }
        let calls = [host.call(&devices[0], "remove")?, host.call(&devices[1], "remove")?];
        thread::sleep(Duration::from_micros(200 * (delay / 2)));
        host.daemon_mut()?.kill()?;
        // libxl ignores the script's exit code, and removes the directory, or the operator detaches once more.
        let again = delay % 2 == 0;
        for (device, call) in devices.iter().zip(calls) {
            let _ = call.answer();
            if !again {
                host.toolstack().forget(device)?;
            }
        }
        host.daemon_mut()?.restart()?;
        if again {
            for device in &devices {
                host.call(device, "remove")?.answer()?.done()?;
                assert_eq!(host.node(device, "hotplug-status")?.as_deref(), Some("disconnected"));
                host.toolstack().forget(device)?;
            }
        }
        expect_nothing_attached(&host)?;
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn connected_devices_are_adopted_by_the_next_daemon() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let devices = [host.plug_disk(3, 0)?, host.plug_vif(3, 0)?];
    for device in &devices {
        host.expect_connected(device)?;
    }
    let loops = attached_below(host.directory())?;
    host.daemon_mut()?.kill()?;
    host.daemon_mut()?.restart()?;
    for device in &devices {
        host.call(device, "add")?.answer()?.done()?;
    }
    assert_eq!(attached_below(host.directory())?, loops);
    host.end_guest_of_dom0(3, &devices)?;
    baseline.assert_same(&host)
}

#[test]
fn disk_not_yet_opened_by_blkback_is_attached_again_on_restart() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    host.stop_kernel();
    let disk = host.attach_disk(3, 0)?;
    write(&mut host, &disk, "state", "2")?;
    host.call(&disk, "add")?.answer()?.done()?;
    // Only the daemon holds the loop device, so it goes with the daemon.
    host.daemon_mut()?.kill()?;
    ensure!(attached_below(host.directory())?.is_empty());
    host.daemon_mut()?.restart()?;
    host.expect_status(&disk, "connected")?;
    assert_eq!(attached_below(host.directory())?.len(), 1);
    host.call(&disk, "remove")?.answer()?.done()?;
    host.toolstack().forget(&disk)?;
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn dom0_devices_removed_during_downtime_are_released_at_start() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let devices = [host.plug_disk(3, 0)?, host.plug_vif(3, 0)?];
    for device in &devices {
        host.expect_connected(device)?;
    }
    host.daemon_mut()?.kill()?;
    for device in &devices {
        ensure!(host.call(device, "remove").is_err(), "who answers?");
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)?;
    host.daemon_mut()?.restart()?;
    baseline.assert_same(&host)
}

#[test]
fn dead_guest_leaves_nothing() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    let devices = [host.plug_disk(3, 0)?, host.plug_vif(3, 0)?];
    for device in &devices {
        host.expect_connected(device)?;
    }
    host.xenstored().kill_domain(3)?;
    host.end_guest_of_dom0(3, &devices)?;
    baseline.assert_same(&host)
}

#[test]
fn stopping_daemon_answers_pending_script_calls() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    host.stop_kernel();
    let waiting = host.attach_disk(3, 0)?;
    let ready = Device::disk(3, 1);
    host.attach_disk(3, 1)?;
    write(&mut host, &ready, "state", "2")?;
    let refused = host.call(&waiting, "add")?;
    thread::sleep(MOMENT);
    let begun = host.call(&ready, "add")?;
    thread::sleep(Duration::from_millis(1));
    let status = host.daemon_mut()?.terminate()?;
    ensure!(status.success(), "{status}");
    refused.answer()?.says("failed", &["ending"])?;
    // The call has an answer, whether it began or came too late.
    let answer = begun.answer()?;
    ensure!(
        answer.outcome == "done" || answer.says("failed", &["ending"]).is_ok(),
        "{answer:?}"
    );
    host.daemon_mut()?.restart()?;
    for device in [&waiting, &ready] {
        host.call(device, "remove")?.answer()?.done()?;
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn script_call_is_answered_though_the_store_stalls_or_dies() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_state(&disk, "2")?;
    host.xenstored().stall()?;
    let call = host.call(&disk, "add")?;
    thread::sleep(Duration::from_secs(2));
    host.xenstored().resume()?;
    call.answer()?.done()?;
    host.unplug(&disk)?.done()?;

    for delay in 0..4 {
        let disk = host.attach_disk(4, delay)?;
        host.expect_state(&disk, "2")?;
        let begun = Instant::now();
        let call = host.call(&disk, "add")?;
        thread::sleep(Duration::from_millis(u64::from(delay)));
        host.xenstored_mut().kill()?;
        host.xenstored_mut().restart()?;
        host.reconnect()?;
        // The new store is empty.
        let answer = call.answer()?;
        ensure!(
            answer.outcome == "failed" || (answer.outcome == "done" && delay > 0),
            "{answer:?}"
        );
        ensure!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    let disk = host.plug_disk(5, 0)?;
    host.expect_connected(&disk)?;
    host.end_guest_of_dom0(5, &[disk])
}
