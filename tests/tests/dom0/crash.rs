//! The daemon or the store ends in the middle of a call: it is answered or its connection breaks, and nothing is left.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Device, TestHost, attached_below};

use super::{MOMENT, expect_nothing_plugged, write};

#[test]
fn daemon_killed_during_add_fails_the_script_and_libxl_cleans() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    for delay in 0..12 {
        let devices = [machine.attach_disk(3, 0)?, machine.attach_card(3, 0)?];
        for device in &devices {
            machine.expect_state(device, "2")?;
        }
        let calls = [machine.call(&devices[0], "add")?, machine.call(&devices[1], "add")?];
        thread::sleep(Duration::from_micros(400 * delay));
        machine.daemon_mut()?.kill()?;
        let answers = calls.map(|call| call.answer());
        machine.daemon_mut()?.restart()?;
        for (device, answer) in devices.iter().zip(answers) {
            match answer {
                // The script ended well: so does the device.
                Ok(answer) => {
                    answer.done()?;
                    machine.expect_connected(device)?;
                }
                // libxl takes the device down again, whatever became of it.
                Err(_) => {
                    let status = machine.node(device, "hotplug-status")?.unwrap_or_default();
                    ensure!(matches!(&*status, "" | "connected"), "{status}");
                }
            }
            machine.unplug(device)?.done()?;
        }
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn daemon_killed_during_remove_is_finished_by_its_successor() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    for delay in 0..20 {
        let devices = [machine.plug_disk(3, 0)?, machine.plug_card(3, 0)?];
        for device in &devices {
            machine.expect_connected(device)?;
        }
        let calls = [
            machine.call(&devices[0], "remove")?,
            machine.call(&devices[1], "remove")?,
        ];
        thread::sleep(Duration::from_micros(200 * (delay / 2)));
        machine.daemon_mut()?.kill()?;
        // libxl ignores how the script ended, and removes the directory; or it is asked once more.
        let again = delay % 2 == 0;
        for (device, call) in devices.iter().zip(calls) {
            let _ = call.answer();
            if !again {
                machine.toolstack().forget(device)?;
            }
        }
        machine.daemon_mut()?.restart()?;
        if again {
            for device in &devices {
                machine.call(device, "remove")?.answer()?.done()?;
                assert_eq!(machine.node(device, "hotplug-status")?.as_deref(), Some("disconnected"));
                machine.toolstack().forget(device)?;
            }
        }
        expect_nothing_plugged(&machine)?;
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn connected_devices_are_adopted_by_the_next_daemon() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let devices = [machine.plug_disk(3, 0)?, machine.plug_card(3, 0)?];
    for device in &devices {
        machine.expect_connected(device)?;
    }
    let plugged = attached_below(machine.directory())?;
    machine.daemon_mut()?.kill()?;
    machine.daemon_mut()?.restart()?;
    for device in &devices {
        machine.call(device, "add")?.answer()?.done()?;
    }
    assert_eq!(attached_below(machine.directory())?, plugged);
    machine.end_guest_of_dom0(3, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn disk_not_yet_opened_by_blkback_is_attached_again_on_restart() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    machine.stop_kernel();
    let disk = machine.attach_disk(3, 0)?;
    write(&mut machine, &disk, "state", "2")?;
    machine.call(&disk, "add")?.answer()?.done()?;
    // Nobody but the daemon holds the loop device: it goes with it.
    machine.daemon_mut()?.kill()?;
    ensure!(attached_below(machine.directory())?.is_empty());
    machine.daemon_mut()?.restart()?;
    machine.expect_status(&disk, "connected")?;
    assert_eq!(attached_below(machine.directory())?.len(), 1);
    machine.call(&disk, "remove")?.answer()?.done()?;
    machine.toolstack().forget(&disk)?;
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn dom0_devices_removed_during_downtime_are_released_at_start() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let devices = [machine.plug_disk(3, 0)?, machine.plug_card(3, 0)?];
    for device in &devices {
        machine.expect_connected(device)?;
    }
    machine.daemon_mut()?.kill()?;
    for device in &devices {
        ensure!(machine.call(device, "remove").is_err(), "who answers?");
        machine.toolstack().forget(device)?;
    }
    machine.toolstack().bury(3)?;
    machine.daemon_mut()?.restart()?;
    baseline.assert_same(&machine)
}

#[test]
fn dead_guest_leaves_nothing() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    let devices = [machine.plug_disk(3, 0)?, machine.plug_card(3, 0)?];
    for device in &devices {
        machine.expect_connected(device)?;
    }
    machine.xenstored().kill_domain(3)?;
    machine.end_guest_of_dom0(3, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn stopping_daemon_answers_pending_script_calls() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    machine.stop_kernel();
    let waiting = machine.attach_disk(3, 0)?;
    let ready = Device::disk(3, 1);
    machine.attach_disk(3, 1)?;
    write(&mut machine, &ready, "state", "2")?;
    let refused = machine.call(&waiting, "add")?;
    thread::sleep(MOMENT);
    let begun = machine.call(&ready, "add")?;
    thread::sleep(Duration::from_millis(1));
    let status = machine.daemon_mut()?.terminate()?;
    ensure!(status.success(), "{status}");
    refused.answer()?.says("failed", &["ending"])?;
    // It was begun, or it was too late: it has its answer.
    let answer = begun.answer()?;
    ensure!(
        answer.outcome == "done" || answer.says("failed", &["ending"]).is_ok(),
        "{answer:?}"
    );
    machine.daemon_mut()?.restart()?;
    for device in [&waiting, &ready] {
        machine.call(device, "remove")?.answer()?.done()?;
        machine.toolstack().forget(device)?;
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn script_call_is_answered_though_the_store_stalls_or_dies() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_state(&disk, "2")?;
    machine.xenstored().stall()?;
    let call = machine.call(&disk, "add")?;
    thread::sleep(Duration::from_secs(2));
    machine.xenstored().resume()?;
    call.answer()?.done()?;
    machine.unplug(&disk)?.done()?;

    for delay in 0..4 {
        let disk = machine.attach_disk(4, delay)?;
        machine.expect_state(&disk, "2")?;
        let begun = Instant::now();
        let call = machine.call(&disk, "add")?;
        thread::sleep(Duration::from_millis(u64::from(delay)));
        machine.xenstored_mut().kill()?;
        machine.xenstored_mut().restart()?;
        machine.reconnect()?;
        // The new store is empty.
        let answer = call.answer()?;
        ensure!(
            answer.outcome == "failed" || (answer.outcome == "done" && delay > 0),
            "{answer:?}"
        );
        ensure!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    let disk = machine.plug_disk(5, 0)?;
    machine.expect_connected(&disk)?;
    machine.end_guest_of_dom0(5, &[disk])
}
