//! Fake QEMU for disks of the kind `qdisk`: opens a guest's devices when they appear, and closes them when they go
//! (QEMU's hw/xen/xen-bus.c and hw/block/xen-block.c). It reads no block.
//!
//! It takes QEMU's own arguments. `FAKE_QEMU_STORE` is xenstored's socket, `FAKE_QEMU_DOMAIN` the domain that it runs
//! in, `FAKE_QEMU_STATE` a folder. With a file `never` in the folder it opens no device, and with a file `chatty` it
//! floods its standard error.
#![allow(clippy::print_stderr, reason = "tests check QEMU's output")]

use std::{
    collections::BTreeSet,
    env,
    fs::File,
    io::{Read, Write, stderr},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use xenplug_tests::store::Store;

/// Polling interval.
const EVERY: Duration = Duration::from_millis(10);

struct Qemu {
    store: Store,
    own: String,
    guest: u16,
    state: PathBuf,
    /// Disks that are open.
    open: BTreeSet<String>,
    /// Disks that could not be opened, so that each is reported once.
    refused: BTreeSet<String>,
}

fn main() -> Result<()> {
    let variable = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let arguments: Vec<String> = env::args().skip(1).collect();
    let at = arguments.iter().position(|argument| argument == "-xen-domid");
    let guest = at.and_then(|at| arguments.get(at + 1)).context("no -xen-domid")?;
    ensure!(
        arguments.iter().any(|argument| argument == "-xen-attach"),
        "no -xen-attach"
    );
    let mut qemu = Qemu {
        store: Store::connect(variable("FAKE_QEMU_STORE")?.as_ref())?,
        own: format!("/local/domain/{}", variable("FAKE_QEMU_DOMAIN")?),
        guest: guest.parse()?,
        state: variable("FAKE_QEMU_STATE")?.into(),
        open: BTreeSet::new(),
        refused: BTreeSet::new(),
    };
    let state = format!("{}/device-model/{}/state", qemu.own, qemu.guest);
    qemu.enumerate()?;
    qemu.store.write(&state, "running")?;
    loop {
        thread::sleep(EVERY);
        if qemu.state.join("chatty").exists() {
            // A write to a full pipe is lost, and QEMU does not fail then.
            let _ = stderr().write_all(format!("{}\n", "chatter ".repeat(100)).repeat(100).as_bytes());
        }
        qemu.enumerate()?;
    }
}

impl Qemu {
    fn enumerate(&mut self) -> Result<()> {
        if self.state.join("never").exists() {
            return Ok(());
        }
        let all = format!("{}/backend/qdisk/{}", self.own, self.guest);
        // The directory is absent before the first and after the last device.
        for device in self.store.children(&all).unwrap_or_default() {
            self.update(&device, &format!("{all}/{device}"))?;
        }
        Ok(())
    }

    fn update(&mut self, device: &str, backend: &str) -> Result<()> {
        let state = self.store.find(&format!("{backend}/state"))?.unwrap_or_default();
        let online = self
            .store
            .find(&format!("{backend}/online"))?
            .is_some_and(|online| online == "1");
        match (&*state, online) {
            ("1", true) if !self.open.contains(device) => match self.open(backend) {
                Ok(()) => {
                    self.store.write(&format!("{backend}/hotplug-status"), "connected")?;
                    self.store.write(&format!("{backend}/state"), "2")?;
                    self.open.insert(device.to_owned());
                }
                Err(error) if self.refused.insert(device.to_owned()) => {
                    eprintln!("qemu: failed to create 'qdisk' device '{device}': failed to create drive: {error:#}");
                }
                Err(_) => {}
            },
            ("5" | "6", false) if self.open.remove(device) => {
                self.store.write(&format!("{backend}/state"), "6")?;
                self.store.remove(backend)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens the image and checks its format.
    fn open(&mut self, backend: &str) -> Result<()> {
        let params = self.store.find(&format!("{backend}/params"))?.unwrap_or_default();
        let (format, path) = params.split_once(':').context("no format")?;
        let mut image = File::open(path).with_context(|| format!("Could not open '{path}'"))?;
        match format {
            "aio" => Ok(()),
            "qcow2" => {
                let mut magic = [0; 4];
                image.read_exact(&mut magic).unwrap_or_default();
                ensure!(magic == *b"QFI\xfb", "Image is not in qcow2 format");
                Ok(())
            }
            _ => bail!("Unknown driver '{format}'"),
        }
    }
}
