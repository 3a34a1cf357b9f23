//! The shim with the real daemon, on real loop devices and bridges.

use std::{fs, path::PathBuf, process::Output};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Device, Disk, Kind, TestHost, Vif};

use crate::fixture::program;

/// dom0 with shims that `xenplug scripts install` has installed.
struct Dom0 {
    host: TestHost,
    folder: PathBuf,
}

impl Dom0 {
    fn new() -> Result<Self> {
        let host = TestHost::dom0()?;
        let folder = host.directory().join("scripts");
        fs::create_dir(&folder)?;
        let dom0 = Self { host, folder };
        let installed = dom0
            .host
            .namespace()
            .command(program("xenplug")?)
            .args(["scripts", "install", "--folder"])
            .arg(&dom0.folder)
            .arg("--shim")
            .arg(program("xenplug-script")?)
            .arg("--config")
            .arg(dom0.config()?)
            .output()?;
        ensure!(
            installed.status.success() && installed.stderr.is_empty(),
            "{installed:?}"
        );
        Ok(dom0)
    }

    fn config(&self) -> Result<PathBuf> {
        Ok(self.host.daemon().context("no daemon")?.config().file())
    }

    /// Runs a device's script as libxl does.
    fn run(&self, device: &Device, [disk, vif]: [&str; 2]) -> Result<Output> {
        let arguments = match device.kind {
            Kind::Vif => vec![vif, "type_if=vif"],
            _ => vec![disk],
        };
        let script = self.folder.join(device.kind.script());
        let mut command = self.host.namespace().command(script);
        self.host.xenstored().equip(&mut command);
        command.args(arguments).env("XENPLUG_CONFIG", self.config()?).env(
            "XENBUS_PATH",
            format!("backend/{}/{}/{}", device.kind, device.frontend, device.devid),
        );
        Ok(command.output()?)
    }

    fn add(&self, device: &Device) -> Result<Output> {
        self.run(device, ["add", "online"])
    }

    fn remove(&self, device: &Device) -> Result<Output> {
        self.run(device, ["remove", "offline"])
    }
}

#[test]
fn libxl_script_runs_attach_and_detach_a_disk_and_a_vif() -> Result<()> {
    let mut dom0 = Dom0::new()?;
    let baseline = dom0.host.baseline()?;
    let image = dom0.host.image("a.img", 4)?;
    for (device, nodes) in [
        (Device::disk(3, 0), Disk::on(&image)),
        (Device::vif(3, 0), Vif::on("xenbr0")),
    ] {
        dom0.host.attach(&device, &nodes)?;
        dom0.host.expect_state(&device, "2")?;
        // Twice, because udev and libxl may both run the script.
        for _ in 0..2 {
            let done = dom0.add(&device)?;
            ensure!(done.status.success() && done.stderr.is_empty(), "{done:?}");
            assert_eq!(dom0.host.node(&device, "hotplug-status")?.as_deref(), Some("connected"));
        }
        dom0.host.expect_connected(&device)?;
        dom0.host.toolstack().detach(&device)?;
        dom0.host.expect_state(&device, "6")?;
        let done = dom0.remove(&device)?;
        ensure!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        dom0.host.toolstack().forget(&device)?;
    }
    dom0.host.toolstack().bury(3)?;
    baseline.assert_same(&dom0.host)
}

#[test]
fn refused_or_unserved_script_run_writes_its_cause_to_the_store() -> Result<()> {
    let mut dom0 = Dom0::new()?;
    let device = Device::disk(3, 0);
    let absent = dom0.host.images().join("absent.img");
    dom0.host.attach(&device, &Disk::on(&absent))?;
    dom0.host.expect_state(&device, "2")?;
    let failed = dom0.add(&device)?;
    let message = String::from_utf8_lossy(&failed.stderr).into_owned();
    ensure!(
        failed.status.code() == Some(1) && message.contains("absent.img"),
        "{failed:?}"
    );
    dom0.host.expect_failure(&device, "error", &["phy", "absent.img"])?;

    dom0.host.daemon_mut()?.kill()?;
    let failed = dom0.add(&device)?;
    ensure!(failed.status.code() == Some(1), "{failed:?}");
    dom0.host
        .expect_failure(&device, "error", &["xenplugd does not answer"])?;

    dom0.host.daemon_mut()?.restart()?;
    fs::File::create(&absent)?.set_len(4 << 20)?;
    let done = dom0.add(&device)?;
    ensure!(done.status.success(), "{done:?}");
    dom0.host.expect_connected(&device)?;
    dom0.host.toolstack().detach(&device)?;
    dom0.host.expect_state(&device, "6")?;
    ensure!(dom0.remove(&device)?.status.success());
    dom0.host.toolstack().forget(&device)?;
    dom0.host.toolstack().bury(3)
}

#[test]
fn udev_tap_run_attaches_it_without_the_vif_path() -> Result<()> {
    let mut dom0 = Dom0::new()?;
    let vif = Device::vif(3, 0);
    dom0.host.attach(&vif, &Vif::on("xenbr0"))?;
    dom0.host.expect_state(&vif, "2")?;
    ensure!(dom0.add(&vif)?.status.success());
    dom0.host.namespace().tap("vif3.0-emu")?;
    let both = ["vif3.0".to_owned(), "vif3.0-emu".to_owned()];
    for (action, ports) in [("add", &both[..]), ("remove", &both[..1])] {
        let mut command = dom0.host.namespace().command(dom0.folder.join("vif-bridge"));
        dom0.host.xenstored().equip(&mut command);
        let done = command
            .args([action, "type_if=tap"])
            .env("XENPLUG_CONFIG", dom0.config()?)
            .env("INTERFACE", "vif3.0-emu")
            .env_remove("XENBUS_PATH")
            .output()?;
        ensure!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        assert_eq!(dom0.host.namespace().ports("xenbr0")?, ports);
    }
    Ok(())
}
