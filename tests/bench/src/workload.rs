//! Workload of the contestants: a store with guests, files or links for their devices, and a watch.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use xenplug_tests::{
    harness::{DebianRoot, Device, Disk, Kind, Scripts, Toolstack, Vif, Xenstored, attached_below, detach_below},
    store::Store,
};

use super::contestant::Contestant;

/// Largest number of devices of a guest.
const PER_GUEST: u32 = 10;
/// Time limit of a run.
const LIMIT: Duration = Duration::from_secs(300);
const BRIDGE: &str = "xenbr0";

/// Store, images and bridge for devices of one kind.
pub(super) struct Workload {
    kind: Kind,
    directory: PathBuf,
    run: TempDir,
    toolstack: Toolstack,
    watcher: Store,
    guests: u32,
    xenstored: Xenstored,
    root: DebianRoot,
}

impl Workload {
    pub(super) fn new(kind: Kind, directory: &Path) -> Result<Self> {
        let root = DebianRoot::find()?;
        let xenstored = Xenstored::start(&root)?;
        let (toolstack, watcher) = (Toolstack::new(xenstored.connect()?), xenstored.connect()?);
        fs::create_dir_all(directory.join("images"))?;
        let run = tempfile::Builder::new()
            .prefix("xenplug-bench-")
            .tempdir_in("/dev/shm")?;
        let workload = Self {
            kind,
            directory: directory.to_owned(),
            run,
            toolstack,
            watcher,
            guests: 0,
            xenstored,
            root,
        };
        if kind == Kind::Vif {
            ip(&format!("link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n"))?;
        }
        Ok(workload)
    }

    pub(super) fn xenstored(&self) -> &Xenstored {
        &self.xenstored
    }

    pub(super) fn images(&self) -> PathBuf {
        self.directory.join("images")
    }

    /// Returns the daemon's directory. It is on a tmpfs, as `/run` is.
    pub(super) fn daemon_directory(&self) -> PathBuf {
        self.run.path().to_owned()
    }

    pub(super) fn scripts(&self) -> Scripts<'_> {
        Scripts {
            root: &self.root,
            xenstored: &self.xenstored,
            namespace: None,
        }
    }

    /// Measures how long `count` devices take to attach at once, and detaches them.
    pub(super) fn run(&mut self, contestant: &mut Contestant, count: u32) -> Result<Duration> {
        let devices = self.create_devices(count)?;
        let time = self.connect(contestant, &devices)?;
        self.detach(contestant, &devices)?;
        Ok(time)
    }

    /// Attaches `count` devices at once.
    pub(super) fn attach(&mut self, contestant: &mut Contestant, count: u32) -> Result<Vec<Device>> {
        let devices = self.create_devices(count)?;
        self.connect(contestant, &devices)?;
        Ok(devices)
    }

    /// Creates the devices, in state 1, and waits until the contestant is idle.
    fn create_devices(&mut self, count: u32) -> Result<Vec<Device>> {
        let mut devices = Vec::new();
        let mut links = String::new();
        for number in 0..count {
            let (guest, index) = (number / PER_GUEST + 1, number % PER_GUEST);
            if guest > self.guests {
                self.toolstack.build(u16::try_from(guest)?)?;
                self.guests = guest;
            }
            let guest = u16::try_from(guest)?;
            let device = match self.kind {
                Kind::Vbd | Kind::Vbd3 | Kind::Vscsi => {
                    let device = Device::disk(guest, index);
                    let image = self.images().join(format!("{guest}-{index}.img"));
                    File::create(&image)?.set_len(16 << 20)?;
                    self.toolstack.attach(&device, &Disk::on(&image))?;
                    device
                }
                Kind::Vif => {
                    let device = Device::vif(guest, index);
                    writeln!(links, "tuntap add {} mode tap", device.link())?;
                    self.toolstack.attach(&device, &Vif::on(BRIDGE))?;
                    device
                }
            };
            devices.push(device);
        }
        ip(&links)?;
        thread::sleep(Duration::from_millis(30) + Duration::from_millis(2) * count);
        Ok(devices)
    }

    /// Returns the time from the first write of `state=2` until a watch has shown all devices connected.
    fn connect(&mut self, contestant: &mut Contestant, devices: &[Device]) -> Result<Duration> {
        // Several devices share one watch, because xenstored checks every watch at every write.
        let watched = match devices {
            [device] => format!("{}/hotplug-status", device.backend()),
            _ => format!("/local/domain/0/backend/{}", self.kind),
        };
        self.watcher.watch(&watched, "stopwatch")?;
        while self.watcher.event(Duration::from_millis(20))?.is_some() {}
        let mut waiting: std::collections::HashSet<Device> = devices.iter().copied().collect();

        let start = Instant::now();
        for device in devices {
            self.toolstack
                .store()
                .write(&format!("{}/state", device.backend()), "2")?;
            contestant.start_script(self, device)?;
        }
        while !waiting.is_empty() {
            let left = LIMIT.saturating_sub(start.elapsed());
            let Some(event) = self.watcher.event(left)? else {
                bail!(
                    "{} of {} devices are not connected after {LIMIT:?}\n{}",
                    waiting.len(),
                    devices.len(),
                    contestant.log()
                );
            };
            let Some(device) = Device::of_path(&event.path).filter(|_| event.path.ends_with("/hotplug-status")) else {
                continue;
            };
            match self.watcher.find(&event.path)?.as_deref() {
                Some("connected") => {
                    waiting.remove(&device);
                }
                Some("error" | "busy") => {
                    let cause = self.watcher.find(&format!("{}/hotplug-error", device.backend()))?;
                    bail!("{device:?}: {cause:?}\n{}", contestant.log());
                }
                _ => {}
            }
        }
        let time = start.elapsed();
        contestant.wait_for_scripts()?;
        self.watcher.unwatch(&watched, "stopwatch")?;
        Ok(time)
    }

    /// Removes the devices, and waits until no loop device or port is left.
    pub(super) fn detach(&mut self, contestant: &mut Contestant, devices: &[Device]) -> Result<()> {
        for device in devices {
            self.toolstack.forget(device)?;
        }
        let until = Instant::now() + LIMIT;
        match self.kind {
            Kind::Vbd | Kind::Vbd3 | Kind::Vscsi => {
                if matches!(contestant, Contestant::Script(_)) {
                    detach_below(&self.images())?;
                }
                while !attached_below(&self.images())?.is_empty() {
                    ensure!(
                        Instant::now() < until,
                        "loop devices are still attached\n{}",
                        contestant.log()
                    );
                    thread::sleep(Duration::from_millis(2));
                }
            }
            Kind::Vif => {
                if contestant.process().is_some() {
                    while fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif"))?.next().is_some() {
                        ensure!(
                            Instant::now() < until,
                            "vifs are still ports of the bridge\n{}",
                            contestant.log()
                        );
                        thread::sleep(Duration::from_millis(2));
                    }
                }
                ip(&devices.iter().fold(String::new(), |all, device| {
                    all + &format!("link delete {}\n", device.link())
                }))?;
            }
        }
        Ok(())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = detach_below(&self.images());
        if self.kind == Kind::Vif {
            let _ = ip(&format!("link delete {BRIDGE}\n"));
        }
    }
}

/// Runs lines of commands with `ip -batch`, in this process's namespace.
fn ip(lines: &str) -> Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("ip (iproute2)")?;
    if let Some(mut input) = ip.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    ensure!(ip.wait()?.success(), "ip -batch failed");
    Ok(())
}
