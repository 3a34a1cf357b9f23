//! Runs the original hotplug scripts as libxl does (`get_hotplug_env` in libxl_linux.c).

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{DebianRoot, Device, Kind, Namespace, Xenstored};
use crate::store::Store;

/// Number of retries after a script has lost a race for a loop device.
const RETRIES: usize = 5;

/// Original scripts, in a namespace in which their files below `/run` and `/var/log` are private.
#[derive(Clone, Copy, Debug)]
pub struct Scripts<'a> {
    /// Root file system that contains the scripts.
    pub root: &'a DebianRoot,
    /// Store that the scripts use.
    pub xenstored: &'a Xenstored,
    /// Namespace of the scripts; `None` if this program runs in it.
    pub namespace: Option<&'a Namespace>,
}

impl Scripts<'_> {
    /// Runs `block add` or `vif-bridge online`. `block` finds a free loop device and takes it later: the script runs
    /// again if another test has taken the device in between.
    pub fn plug(&self, device: &Device) -> Result<()> {
        for _ in 0..RETRIES {
            if finish(device, self.start(device)?).is_ok() {
                return Ok(());
            }
            let mut store = Store::connect(&self.xenstored.socket())?;
            let error = store.find(&format!("{}/hotplug-error", device.backend()))?;
            if !error.is_some_and(|error| error.contains("losetup")) {
                break;
            }
        }
        finish(device, self.start(device)?)
    }

    /// Starts `block add` or `vif-bridge online`.
    pub fn start(&self, device: &Device) -> Result<Child> {
        self.spawn(device, ["add", "online"])
    }

    /// Runs `block remove` or `vif-bridge offline`.
    pub fn unplug(&self, device: &Device) -> Result<()> {
        finish(device, self.spawn(device, ["remove", "offline"])?)
    }

    fn spawn(&self, device: &Device, [disk, vif]: [&str; 2]) -> Result<Child> {
        let script = self.root.script(device.kind.script());
        let mut command = self
            .namespace
            .map_or_else(|| Command::new(&script), |namespace| namespace.command(&script));
        self.xenstored.equip(&mut command);
        command
            .env("script", &script)
            .env("XENBUS_TYPE", device.kind.to_string())
            .env(
                "XENBUS_PATH",
                format!("backend/{}/{}/{}", device.kind, device.frontend, device.devid),
            )
            .env("XENBUS_BASE_PATH", "backend");
        match device.kind {
            Kind::Vif => command
                .args([vif, "type_if=vif"])
                .env("netdev", "")
                .env("vif", device.link()),
            _ => command.arg(disk),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| script.display().to_string())
    }
}

fn finish(device: &Device, mut script: Child) -> Result<()> {
    let status = script.wait()?;
    ensure!(status.success(), "the script for {device:?}: {status}");
    Ok(())
}
