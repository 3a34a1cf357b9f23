//! Fixture: a domain whose plugin `qdisk` starts a fake QEMU.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use xenplug_tests::{
    harness::{Config, Helper, TestHost, build_directory},
    loud::say,
};

use super::super::until;

/// Domain id of the driver domain.
pub(super) const OWN: u16 = 1;

/// Patterns of QEMU's arguments for a guest.
pub(super) const ARGUMENTS: &[&str] = &[
    "-xen-domid",
    "*",
    "-xen-attach",
    "-name",
    "domain-*",
    "-nographic",
    "-M",
    "xenpv",
    "-monitor",
    "/dev/null",
    "-serial",
    "/dev/null",
    "-parallel",
    "/dev/null",
];

/// A driver domain, or dom0, with the plugin `qdisk` and a fake program for QEMU.
pub(super) struct Qemus {
    pub(super) host: TestHost,
    pub(super) qemu: Helper,
    /// Domain id of the backend.
    pub(super) domain: u16,
}

impl Qemus {
    pub(super) fn new() -> Result<Self> {
        Self::with("", "")
    }

    /// Makes a driver domain. QEMU runs `before` as shell commands first, and the plugin has `settings`.
    pub(super) fn with(before: &str, settings: &str) -> Result<Self> {
        let mut host = TestHost::new()?;
        host.toolstack()
            .store()
            .write("/local/domain/0/domid", OWN.to_string())?;
        let config = host.config()?;
        Self::on(host, config, OWN, before, settings)
    }

    /// Makes a dom0, where the plugin serves requests.
    pub(super) fn in_dom0() -> Result<Self> {
        let host = TestHost::new()?;
        let config = host.config_of_dom0()?;
        let qemus = Self::on(host, config, 0, "", "")?;
        let done = qemus.host.xenplug(&["prepare", "0"])?.output()?;
        ensure!(done.status.success(), "xenplug prepare: {done:?}");
        Ok(qemus)
    }

    pub(super) fn on(mut host: TestHost, config: Config, domain: u16, before: &str, settings: &str) -> Result<Self> {
        say("NOTE: QEMU is a fake that plays its part in the store; no block is read");
        host.stop_kernel();
        let text = format!(
            "echo $$ >>$here/started\n{before}\nexec env FAKE_QEMU_STORE={:?} FAKE_QEMU_DOMAIN={domain} FAKE_QEMU_STATE=$here \
             {:?} \"$@\"\n",
            host.xenstored().socket(),
            build_directory()?.join("xenplug-qemu"),
        );
        let qemu = Helper::new(host.directory(), "qemu", &text)?;
        let table = format!(
            r#"
[plugin.qdisk]
component = "qdisk.wasm"
kinds = ["qdisk"]
scripts = ["qdisk"]
[plugin.qdisk.grant]
block = [{{ path = {images:?}, access = "rw" }}]
process = [{rules}]
[plugin.qdisk.config]
{settings}
"#,
            images = host.images(),
            rules = qemu.rules(&[ARGUMENTS]),
        );
        host.start_daemon(config.with(&table))?;
        Ok(Self { host, qemu, domain })
    }

    /// Writes a disk as libxl does, and builds its guest if necessary.
    pub(super) fn attach(&mut self, disk: Disk, params: &str, mode: &str) -> Result<()> {
        let images = self.host.images();
        let (format, image) = params.split_once(':').context("a format and an image")?;
        let toolstack = self.host.toolstack();
        if !toolstack.store().is_introduced(disk.guest)? {
            toolstack.build(disk.guest)?;
        }
        toolstack.store().transaction(|store| {
            for (name, value) in [
                (
                    "frontend",
                    format!("/local/domain/{}/device/vbd/{}", disk.guest, disk.devid),
                ),
                ("params", format!("{format}:{}", images.join(image).display())),
                ("frontend-id", disk.guest.to_string()),
                ("online", "1".to_owned()),
                ("removable", "0".to_owned()),
                ("bootable", "1".to_owned()),
                ("state", "1".to_owned()),
                ("type", "qdisk".to_owned()),
                ("mode", mode.to_owned()),
                ("device-type", "disk".to_owned()),
                ("discard-enable", "1".to_owned()),
            ] {
                store.write(&format!("{}/{name}", disk.backend()), value)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Requests a disk's removal as libxl does, and waits until it is gone.
    pub(super) fn detach(&mut self, disk: Disk) -> Result<()> {
        self.host.toolstack().store().transaction(|store| {
            store.write(&format!("{}/online", disk.backend()), "0")?;
            store.write(&format!("{}/state", disk.backend()), "5")
        })?;
        self.expect(&disk.node("state"), None)
    }

    pub(super) fn expect_connected(&self, disk: Disk) -> Result<()> {
        self.expect(&disk.node("hotplug-status"), Some("connected"))?;
        self.expect(&disk.node("state"), Some("2"))?;
        // The daemon publishes this, not QEMU.
        until("it is connected", || {
            let status = self.host.daemon().context("it runs")?.status()?;
            Ok(status.to_string().contains("shared qemu"))
        })
    }

    pub(super) fn expect_failure(&self, disk: Disk, status: &str, words: &[&str]) -> Result<()> {
        self.expect(&disk.node("hotplug-status"), Some(status))?;
        let error = self
            .host
            .connect()?
            .find(&disk.node("hotplug-error"))?
            .unwrap_or_default();
        for word in words {
            ensure!(error.contains(word), "{word:?} is not in {error:?}");
        }
        Ok(())
    }

    pub(super) fn expect(&self, node: &str, value: Option<&str>) -> Result<()> {
        let mut store = self.host.connect()?;
        match store.wait(node, Duration::from_secs(20), |now| now == value)? {
            Ok(_) => Ok(()),
            Err(found) => anyhow::bail!("{node} is {found:?} and not {value:?}\n{}", self.host.daemon_log()),
        }
    }

    /// Returns the process ids of all started QEMUs.
    pub(super) fn started(&self) -> Vec<i32> {
        let started = fs::read_to_string(self.qemu.file("started")).unwrap_or_default();
        started.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Returns the process ids of the running QEMUs.
    pub(super) fn running(&self) -> Vec<i32> {
        let runs = |pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let own = self.qemu.file("").display().to_string();
            String::from_utf8_lossy(&environment).contains(own.trim_end_matches('/'))
                && stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
        };
        self.started().into_iter().filter(runs).collect()
    }

    pub(super) fn kill(&self, pid: i32) -> Result<()> {
        Ok(kill_process(Pid::from_raw(pid).context("a process")?, Signal::KILL)?)
    }

    pub(super) fn nothing_is_left(&self) -> Result<()> {
        until("QEMU ends", || Ok(self.running().is_empty()))?;
        let mut store = self.host.connect()?;
        let written = format!("/local/domain/{}/device-model/3", self.domain);
        until("what QEMU wrote goes", || Ok(store.tree(&written)?.is_empty()))?;
        let journal = self.host.directory().join("run/journal");
        until("the journal's records go", || {
            let names = fs::read_dir(&journal)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let names: Vec<String> = names.collect::<Result<_>>()?;
            Ok(!names.iter().any(|name| name.contains("qdisk")))
        })
    }
}

impl Drop for Qemus {
    fn drop(&mut self) {
        for pid in self.running() {
            let _ = self.kill(pid);
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Disk {
    pub(super) guest: u16,
    pub(super) devid: u32,
}

pub(super) const A: Disk = Disk { guest: 3, devid: 51712 };
pub(super) const B: Disk = Disk { guest: 3, devid: 51728 };
pub(super) const OTHER: Disk = Disk { guest: 4, devid: 51712 };

impl Disk {
    pub(super) fn backend(self) -> String {
        format!("/local/domain/{OWN}/backend/qdisk/{}/{}", self.guest, self.devid)
    }

    pub(super) fn node(self, name: &str) -> String {
        format!("{}/{name}", self.backend())
    }
}
