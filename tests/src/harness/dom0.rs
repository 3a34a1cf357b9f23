//! Played libxl with the backends in its own domain: it runs the scripts and removes the directories itself, in libxl's
//! order (libxl_device.c, `device_backend_callback`, `device_hotplug`, `device_hotplug_done`).

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Answer, Call, Config, Device, Disk, Kind, Nodes, TestHost, Vif};

/// Time that libxl waits for the backend before it runs a script (`LIBXL_INIT_TIMEOUT`, `LIBXL_DESTROY_TIMEOUT`).
const BACKEND: Duration = Duration::from_secs(10);

impl TestHost {
    /// Starts a host with the daemon in dom0 mode.
    pub fn dom0() -> Result<Self> {
        Self::dom0_with("")
    }

    /// Starts a host with the daemon in dom0 mode, and more text in its configuration.
    pub fn dom0_with(more: &str) -> Result<Self> {
        let mut host = Self::new()?;
        host.start_daemon(host.config_of_dom0()?.with(more))?;
        Ok(host)
    }

    /// Returns the standard configuration, in dom0 mode.
    pub fn config_of_dom0(&self) -> Result<Config> {
        Ok(self.config()?.replacing("\"driver-domain\"", "\"dom0\""))
    }

    /// Calls the daemon as the shim of a script does. `more` has arguments besides script, action and device.
    pub fn call_of(&self, script: &str, device: &Device, action: &str, more: Value) -> Result<Call> {
        let mut body = json!({
            "script": script,
            "action": action,
            "backend": format!("backend/{}/{}/{}", device.kind, device.frontend, device.devid),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        Call::with(&body.to_string(), &self.control_socket()?)
    }

    /// Calls the daemon about a device, with `add` or `remove`.
    pub fn call(&self, device: &Device, action: &str) -> Result<Call> {
        Call::about(device, action, &self.control_socket()?)
    }

    /// Attaches a device as `xl` does: writes it, waits for state 2, and runs the script. Tapback leaves state 1 only
    /// after the script.
    pub fn plug(&mut self, device: &Device, nodes: &Nodes) -> Result<Answer> {
        self.attach(device, nodes)?;
        if device.kind != Kind::Vbd3 {
            self.expect_state(device, "2")?;
        }
        self.call(device, "add")?.answer()
    }

    /// Attaches a disk on a new image.
    pub fn plug_disk(&mut self, guest: u16, index: u32) -> Result<Device> {
        let image = self.image(&format!("{guest}-{index}.img"), 4)?;
        let disk = Device::disk(guest, index);
        self.plug(&disk, &Disk::on(&image))?.done()?;
        Ok(disk)
    }

    /// Attaches a vif on `xenbr0`.
    pub fn plug_vif(&mut self, guest: u16, index: u32) -> Result<Device> {
        let vif = Device::vif(guest, index);
        self.plug(&vif, &Vif::on("xenbr0"))?.done()?;
        Ok(vif)
    }

    /// Detaches a device as `xl` does: requests it, waits for state 6, runs the script, and removes the directories
    /// regardless of the script's answer.
    pub fn unplug(&mut self, device: &Device) -> Result<Answer> {
        self.toolstack().detach(device)?;
        let state = format!("{}/state", device.backend());
        let ended = self
            .toolstack()
            .store()
            .wait(&state, BACKEND, |state| matches!(state, Some("6") | None))?;
        ensure!(ended.is_ok(), "{state} is {ended:?}");
        let answer = self.call(device, "remove")?.answer();
        self.toolstack().forget(device)?;
        answer
    }

    /// Detaches a guest's devices and removes the guest.
    pub fn end_guest_of_dom0(&mut self, guest: u16, devices: &[Device]) -> Result<()> {
        for device in devices {
            self.unplug(device)?.done()?;
        }
        self.toolstack().bury(guest)
    }
}
