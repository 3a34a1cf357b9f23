//! `hotplug-status=disconnected` is the word for the end of clean-up in every mode: when it is written, nothing is held.

use anyhow::{Context, Result, bail, ensure};
use xenplug_tests::{
    harness::{Device, TestHost, attached_below},
    store::Store,
};

use crate::stage::{PATIENCE, Stage};

/// Who waits for a device's word.
struct Listener {
    store: Store,
    device: Device,
}

impl Listener {
    fn new(machine: &TestHost, device: &Device) -> Result<Self> {
        let mut store = machine.connect()?;
        store.watch(&device.backend(), "w")?;
        store.event(PATIENCE)?.context("no first event")?;
        Ok(Self { store, device: *device })
    }

    /// Waits until the status is written, finds nothing held at that moment, and gives what it says, if it is there still.
    fn hears(mut self, machine: &TestHost) -> Result<Option<String>> {
        let status = format!("{}/hotplug-status", self.device.backend());
        while self.store.event(PATIENCE)?.context("no word comes")?.path != status {}
        let loops = attached_below(machine.directory())?;
        let ports = machine.namespace().ports("xenbr0")?;
        assert_eq!((loops, ports), (vec![], vec![]), "held when {:?} ended", self.device);
        Ok(self.store.find(&status)?)
    }
}

/// Plays rounds until one has read the word: where the directory goes right after that, it may be gone before it is read.
fn is_heard(mut round: impl FnMut() -> Result<Option<String>>) -> Result<()> {
    for _ in 0..30 {
        match round()?.as_deref() {
            Some("disconnected") => return Ok(()),
            Some(word) => bail!("the word is {word:?}"),
            None => {}
        }
    }
    bail!("the word was never there")
}

#[test]
fn driver_domain_status_is_written_after_release() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    for attach in [TestHost::attach_disk, TestHost::attach_card] {
        is_heard(|| {
            let device = attach(&mut machine, 3, 0)?;
            machine.expect_connected(&device)?;
            let listener = Listener::new(&machine, &device)?;
            machine.toolstack().detach(&device)?;
            let word = listener.hears(&machine)?;
            machine.detach(&device)?;
            Ok(word)
        })?;
    }
    Ok(())
}

#[test]
fn dom0_status_is_written_after_release() -> Result<()> {
    let mut machine = TestHost::dom0()?;
    for plug in [TestHost::plug_disk, TestHost::plug_card] {
        let device = plug(&mut machine, 3, 0)?;
        machine.expect_connected(&device)?;
        let listener = Listener::new(&machine, &device)?;
        machine.toolstack().detach(&device)?;
        assert_eq!(listener.hears(&machine)?.as_deref(), Some("disconnected"));
        machine.call(&device, "remove")?.answer()?.done()?;
        machine.toolstack().forget(&device)?;
    }
    Ok(())
}

#[test]
fn request_status_is_written_after_release_and_before_close() -> Result<()> {
    for stage in [Stage::new()?, Stage::in_dom0()?] {
        for asked in [stage.disk("a.img")?, stage.card()] {
            stage.attach(&asked)?;
            stage.expect(&asked, "4")?;
            let listener = Listener::new(&stage.machine, &asked.device)?;
            let detaching = stage.spawn("detach", &asked, &["--wait", "--timeout", "60s"])?;
            // Its directory goes right after that, if it has not gone yet.
            let word = listener.hears(&stage.machine)?;
            ensure!(matches!(word.as_deref(), Some("disconnected") | None), "{word:?}");
            ensure!(detaching.wait_with_output()?.status.success(), "detach failed");
        }
    }
    Ok(())
}
