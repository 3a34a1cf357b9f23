//! Runs the original hotplug scripts as libxl does (`get_hotplug_env` in libxl_linux.c).

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{DebianRoot, Device, Kind, Namespace, Xenstored};
use crate::store::Store;

/// How often a script may lose a race for a loop device.
const RACES: usize = 5;

/// The original scripts, in a namespace where what they leave in `/run` and `/var/log` goes with it.
#[derive(Clone, Copy, Debug)]
pub struct Scripts<'a> {
    /// Where they are.
    pub root: &'a DebianRoot,
    /// The store they speak to.
    pub xenstored: &'a Xenstored,
    /// Where to run them; `None` if this program is in there itself.
    pub namespace: Option<&'a Namespace>,
}

impl Scripts<'_> {
    /// `block add` or `vif-bridge online`, to its end. `block` looks for a free loop device and takes it later: where
    /// another test's came in between, it is run once more.
    pub fn plug(&self, device: &Device) -> Result<()> {
        for _ in 0..RACES {
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

    /// The same, started and not waited for.
    pub fn start(&self, device: &Device) -> Result<Child> {
        self.spawn(device, ["add", "online"])
    }

    /// `block remove` or `vif-bridge offline`, to its end.
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
