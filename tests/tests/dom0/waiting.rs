//! Calls that wait: for the backend, for a handler, for as long as a script may.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Call, Device, Disk, TestHost, attached_below};

use super::{MOMENT, write};

#[test]
fn early_add_waits_for_state_and_link() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    machine.stop_kernel();
    let devices = [machine.attach_disk(3, 0)?, machine.attach_card(3, 0)?];
    let [for_disk, for_card] = [machine.call(&devices[0], "add")?, machine.call(&devices[1], "add")?];
    thread::sleep(MOMENT);
    for device in &devices {
        write(&mut machine, device, "state", "2")?;
    }
    for_disk.answer()?.done()?;
    // netback announces state 2 before it makes the link.
    thread::sleep(MOMENT);
    assert_eq!(machine.node(&devices[1], "hotplug-status")?.as_deref(), Some(""));
    machine.namespace().vif(&devices[1].link(), &devices[1].guest_link())?;
    for_card.answer()?.done()?;
    assert_eq!(machine.namespace().ports("xenbr0")?, [devices[1].link()]);
    for device in &devices {
        machine.call(device, "remove")?.answer()?.done()?;
        machine.toolstack().forget(device)?;
    }
    machine.namespace().ip(&format!("link delete {}", devices[1].link()))?;
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn disconnected_caller_cancels_its_script_call() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    let baseline = machine.baseline()?;
    machine.stop_kernel();
    let disk = machine.attach_disk(3, 0)?;
    let call = machine.call(&disk, "add")?;
    thread::sleep(MOMENT);
    drop(call);
    thread::sleep(MOMENT);
    write(&mut machine, &disk, "state", "2")?;
    thread::sleep(MOMENT);
    ensure!(attached_below(machine.directory())?.is_empty());
    assert_eq!(machine.node(&disk, "hotplug-status")?, None);
    machine.call(&disk, "add")?.answer()?.done()?;
    machine.call(&disk, "remove")?.answer()?.done()?;
    machine.toolstack().forget(&disk)?;
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn waiting_add_is_answered_before_libxl_kills_the_script() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    machine.stop_kernel();
    let devices = [machine.attach_disk(3, 0)?, machine.attach_card(3, 0)?];
    write(&mut machine, &devices[1], "state", "2")?;
    let begun = Instant::now();
    let calls = [machine.call(&devices[0], "add")?, machine.call(&devices[1], "add")?];
    for ((call, device), cause) in calls.into_iter().zip(&devices).zip(["state 1", "no link vif3.0"]) {
        let answer = call.answer()?;
        answer.says("failed", &["not within 35 s", cause])?;
        assert_eq!(machine.node(device, "hotplug-error")?, answer.error);
        assert_eq!(machine.node(device, "hotplug-status")?.as_deref(), Some("error"));
    }
    ensure!(begun.elapsed() < Duration::from_secs(38), "{:?}", begun.elapsed());
    // What comes too late is not plugged.
    write(&mut machine, &devices[0], "state", "2")?;
    thread::sleep(MOMENT);
    ensure!(attached_below(machine.directory())?.is_empty());
    Ok(())
}

#[test]
fn endless_handler_stops_before_libxl_kills_its_script() -> Result<()> {
    let mut machine = TestHost::new()?;
    let config = machine
        .config()?
        .replacing("\"driver-domain\"", "\"dom0\"")
        .with(&format!(
            "\n[plugin.spin]\ncomponent = \"guests/spin-after-loop.wasm\"\nkinds = [\"vbd\"]\nscripts = [\"spin\"]\n\
         [plugin.spin.grant]\nblock = [{{ path = {:?}, access = \"rw\" }}]\nloop = true\n\
         [plugin.spin.limits]\ndeadline = \"5m\"\n",
            machine.images()
        ));
    machine.start_daemon(config)?;
    let baseline = machine.baseline()?;
    let socket = machine.control_socket()?;
    let disks = [Device::disk(3, 0), Device::disk(3, 1)];
    let calls = disks.map(|disk| {
        let image = machine.image(&format!("{}.img", disk.devid), 4)?;
        machine.attach(&disk, &Disk::on(&image).with("script", "spin"))?;
        machine.expect_state(&disk, "2")?;
        let backend = disk.backend();
        let body = format!(r#"{{"script": "spin", "action": "add", "backend": "{backend}"}}"#);
        Call::with(&body, &socket)
    });
    let [first, second] = calls;
    let (first, second, begun) = (first?, second?, Instant::now());
    while attached_below(machine.directory())?.len() < 2 {
        ensure!(begun.elapsed() < MOMENT * 10, "the handlers do not run");
    }
    machine.call(&disks[1], "remove")?.answer()?.done()?;
    second.answer()?.says("failed", &[])?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let answer = first.answer()?;
    answer.says("failed", &["spin", "nobody waits"])?;
    ensure!(begun.elapsed() < Duration::from_secs(38), "{:?}", begun.elapsed());
    assert_eq!(machine.node(&disks[0], "hotplug-error")?, answer.error);
    machine.end_guest_of_dom0(3, &disks)?;
    baseline.assert_same(&machine)
}
