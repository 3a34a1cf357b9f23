//! `hotplug-status=disconnected` ends the clean-up in every mode: when it is written, nothing is held.

use anyhow::{Context, Result, bail, ensure};
use xenplug_tests::{
    harness::{Device, TestHost, attached_below},
    store::Store,
};

use crate::fixture::{Fixture, TIMEOUT};

/// Watch on a device's `hotplug-status`.
struct StatusWatch {
    store: Store,
    device: Device,
}

impl StatusWatch {
    fn new(host: &TestHost, device: &Device) -> Result<Self> {
        let mut store = host.connect()?;
        store.watch(&device.backend(), "w")?;
        store.event(TIMEOUT)?.context("no first event")?;
        Ok(Self { store, device: *device })
    }

    /// Waits until the status is written, checks that nothing is held at that time, and returns the status if it is
    /// still there.
    fn wait(mut self, host: &TestHost) -> Result<Option<String>> {
        let status = format!("{}/hotplug-status", self.device.backend());
        while self.store.event(TIMEOUT)?.context("no status is written")?.path != status {}
        let loops = attached_below(host.directory())?;
        let ports = host.namespace().ports("xenbr0")?;
        assert_eq!((loops, ports), (vec![], vec![]), "held when {:?} ended", self.device);
        Ok(self.store.find(&status)?)
    }
}

/// Repeats a round until it has read the status: a directory that is removed right afterwards may be gone before.
fn is_disconnected(mut round: impl FnMut() -> Result<Option<String>>) -> Result<()> {
    for _ in 0..30 {
        match round()?.as_deref() {
            Some("disconnected") => return Ok(()),
            Some(status) => bail!("the status is {status:?}"),
            None => {}
        }
    }
    bail!("the status was never read")
}

#[test]
fn driver_domain_status_is_written_after_release() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    for attach in [TestHost::attach_disk, TestHost::attach_vif] {
        is_disconnected(|| {
            let device = attach(&mut host, 3, 0)?;
            host.expect_connected(&device)?;
            let watch = StatusWatch::new(&host, &device)?;
            host.toolstack().detach(&device)?;
            let status = watch.wait(&host)?;
            host.detach(&device)?;
            Ok(status)
        })?;
    }
    Ok(())
}

#[test]
fn dom0_status_is_written_after_release() -> Result<()> {
    let mut host = TestHost::dom0()?;
    for plug in [TestHost::plug_disk, TestHost::plug_vif] {
        let device = plug(&mut host, 3, 0)?;
        host.expect_connected(&device)?;
        let watch = StatusWatch::new(&host, &device)?;
        host.toolstack().detach(&device)?;
        assert_eq!(watch.wait(&host)?.as_deref(), Some("disconnected"));
        host.call(&device, "remove")?.answer()?.done()?;
        host.toolstack().forget(&device)?;
    }
    Ok(())
}

#[test]
fn request_status_is_written_after_release_and_before_close() -> Result<()> {
    for fixture in [Fixture::new()?, Fixture::in_dom0()?] {
        for requested in [fixture.disk("a.img")?, fixture.vif()] {
            fixture.attach(&requested)?;
            fixture.expect(&requested, "4")?;
            let watch = StatusWatch::new(&fixture.host, &requested.device)?;
            let detaching = fixture.spawn("detach", &requested, &["--wait", "--timeout", "60s"])?;
            // The directory goes right after that, or is gone already.
            let status = watch.wait(&fixture.host)?;
            ensure!(matches!(status.as_deref(), Some("disconnected") | None), "{status:?}");
            ensure!(detaching.wait_with_output()?.status.success(), "detach failed");
        }
    }
    Ok(())
}
