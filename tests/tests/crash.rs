//! The daemon is killed, and the store: what was connected stays, what has gone is cleaned, and nothing is left.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use xenplug_tests::rig::{Device, Machine, attached_below};

/// A guest with a disk and a card, connected.
fn plugged(machine: &mut Machine, guest: u16) -> Result<[Device; 2]> {
    let devices = [machine.attach_disk(guest, 0)?, machine.attach_card(guest, 0)?];
    for device in &devices {
        machine.expect_connected(device)?;
    }
    Ok(devices)
}

#[test]
fn connected_devices_stay_as_they_are_when_the_daemon_is_killed_and_restarted() -> Result<()> {
    let mut machine = Machine::with_daemon()?;
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
fn connected_devices_stay_when_the_daemon_is_asked_to_end() -> Result<()> {
    let mut machine = Machine::with_daemon()?;
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
fn what_went_while_the_daemon_was_down_is_cleaned_when_it_starts() -> Result<()> {
    let mut machine = Machine::with_daemon()?;
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
fn what_came_while_the_daemon_was_down_is_plugged_when_it_starts() -> Result<()> {
    let mut machine = Machine::with_daemon()?;
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
fn killed_at_any_moment_of_fifty_plugs_the_daemon_comes_back_and_connects_all() -> Result<()> {
    let mut machine = Machine::with_daemon()?;
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
fn a_store_that_is_killed_and_restarted_is_served_again() -> Result<()> {
    let mut machine = Machine::with_daemon()?;
    let baseline = machine.baseline()?;
    plugged(&mut machine, 3)?;
    machine.xenstored_mut().kill()?;
    machine.xenstored_mut().restart()?;
    machine.reconnect()?;
    let devices = plugged(&mut machine, 4)?;
    machine.end_guest(4, &devices)?;
    baseline.assert_same(&machine)
}

#[test]
fn a_store_that_stalls_is_waited_for() -> Result<()> {
    let mut machine = Machine::with_daemon()?;
    let baseline = machine.baseline()?;
    let devices = [machine.attach_disk(3, 0)?, machine.attach_card(3, 0)?];
    machine.xenstored().stall()?;
    thread::sleep(Duration::from_secs(2));
    machine.xenstored().resume()?;
    for device in &devices {
        machine.expect_connected(device)?;
    }
    machine.end_guest(3, &devices)?;
    baseline.assert_same(&machine)
}
