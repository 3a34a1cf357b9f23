//! Script calls that wait for the backend or a handler, up to libxl's deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Call, Device, Disk, TestHost, attached_below};

use super::{MOMENT, write};

#[test]
fn early_add_waits_for_state_and_link() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    host.stop_kernel();
    let devices = [host.attach_disk(3, 0)?, host.attach_vif(3, 0)?];
    let [for_disk, for_vif] = [host.call(&devices[0], "add")?, host.call(&devices[1], "add")?];
    thread::sleep(MOMENT);
    for device in &devices {
        write(&mut host, device, "state", "2")?;
    }
    for_disk.answer()?.done()?;
    // netback writes state 2 before it makes the link.
    thread::sleep(MOMENT);
    assert_eq!(host.node(&devices[1], "hotplug-status")?.as_deref(), Some(""));
    host.namespace().vif(&devices[1].link(), &devices[1].guest_link())?;
    for_vif.answer()?.done()?;
    assert_eq!(host.namespace().ports("xenbr0")?, [devices[1].link()]);
    for device in &devices {
        host.call(device, "remove")?.answer()?.done()?;
        host.toolstack().forget(device)?;
    }
    host.namespace().ip(&format!("link delete {}", devices[1].link()))?;
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn disconnected_caller_cancels_its_script_call() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let baseline = host.baseline()?;
    host.stop_kernel();
    let disk = host.attach_disk(3, 0)?;
    let call = host.call(&disk, "add")?;
    thread::sleep(MOMENT);
    drop(call);
    thread::sleep(MOMENT);
    write(&mut host, &disk, "state", "2")?;
    thread::sleep(MOMENT);
    ensure!(attached_below(host.directory())?.is_empty());
    assert_eq!(host.node(&disk, "hotplug-status")?, None);
    host.call(&disk, "add")?.answer()?.done()?;
    host.call(&disk, "remove")?.answer()?.done()?;
    host.toolstack().forget(&disk)?;
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn waiting_add_is_answered_before_libxl_kills_the_script() -> Result<()> {
    let mut host = TestHost::dom0()?;
    host.stop_kernel();
    let devices = [host.attach_disk(3, 0)?, host.attach_vif(3, 0)?];
    write(&mut host, &devices[1], "state", "2")?;
    let begun = Instant::now();
    let calls = [host.call(&devices[0], "add")?, host.call(&devices[1], "add")?];
    for ((call, device), cause) in calls.into_iter().zip(&devices).zip(["state 1", "no link vif3.0"]) {
        let answer = call.answer()?;
        answer.says("failed", &["not within 35 s", cause])?;
        assert_eq!(host.node(device, "hotplug-error")?, answer.error);
        assert_eq!(host.node(device, "hotplug-status")?.as_deref(), Some("error"));
    }
    ensure!(begun.elapsed() < Duration::from_secs(38), "{:?}", begun.elapsed());
    // A late call attaches nothing.
    write(&mut host, &devices[0], "state", "2")?;
    thread::sleep(MOMENT);
    ensure!(attached_below(host.directory())?.is_empty());
    Ok(())
}

#[test]
fn endless_handler_stops_before_libxl_kills_its_script() -> Result<()> {
    let mut host = TestHost::new()?;
    let config = host.config()?.replacing("\"driver-domain\"", "\"dom0\"").with(&format!(
        "\n[plugin.spin]\ncomponent = \"guests/spin-after-loop.wasm\"\nkinds = [\"vbd\"]\nscripts = [\"spin\"]\n\
         [plugin.spin.grant]\nblock = [{{ path = {:?}, access = \"rw\" }}]\nloop = true\n\
         [plugin.spin.limits]\ndeadline = \"5m\"\n",
        host.images()
    ));
    host.start_daemon(config)?;
    let baseline = host.baseline()?;
    let socket = host.control_socket()?;
    let disks = [Device::disk(3, 0), Device::disk(3, 1)];
    let calls = disks.map(|disk| {
        let image = host.image(&format!("{}.img", disk.devid), 4)?;
        host.attach(&disk, &Disk::on(&image).with("script", "spin"))?;
        host.expect_state(&disk, "2")?;
        let backend = disk.backend();
        let body = format!(r#"{{"script": "spin", "action": "add", "backend": "{backend}"}}"#);
        Call::with(&body, &socket)
    });
    let [first, second] = calls;
    let (first, second, begun) = (first?, second?, Instant::now());
    while attached_below(host.directory())?.len() < 2 {
        ensure!(begun.elapsed() < MOMENT * 10, "the handlers do not run");
    }
    host.call(&disks[1], "remove")?.answer()?.done()?;
    second.answer()?.says("failed", &[])?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let answer = first.answer()?;
    answer.says("failed", &["spin", "nobody waits"])?;
    ensure!(begun.elapsed() < Duration::from_secs(38), "{:?}", begun.elapsed());
    assert_eq!(host.node(&disks[0], "hotplug-error")?, answer.error);
    host.end_guest_of_dom0(3, &disks)?;
    baseline.assert_same(&host)
}
