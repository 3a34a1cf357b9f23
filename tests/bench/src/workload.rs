//! The workload that contestants run: a store with guests, files or links for their devices, and the watch.

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

/// Most devices of a guest.
const PER_GUEST: u32 = 10;
/// Time that a run may take.
const LIMIT: Duration = Duration::from_secs(300);
const BRIDGE: &str = "xenbr0";

/// A store of its own, and what devices of one kind need.
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

    /// A directory for the daemon alone: on a tmpfs, as `/run` is.
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

    /// Plugs so many devices at once, measures that, and takes them away again.
    pub(super) fn run(&mut self, contestant: &mut Contestant, count: u32) -> Result<Duration> {
        let devices = self.line_up(count)?;
        let time = self.race(contestant, &devices)?;
        self.clear(contestant, &devices)?;
        Ok(time)
    }

    /// Plugs so many devices at once and leaves them plugged.
    pub(super) fn plug(&mut self, contestant: &mut Contestant, count: u32) -> Result<Vec<Device>> {
        let devices = self.line_up(count)?;
        self.race(contestant, &devices)?;
        Ok(devices)
    }

    /// Makes the devices, in state 1, and lets everyone come to rest.
    fn line_up(&mut self, count: u32) -> Result<Vec<Device>> {
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

    /// From the first write of `state=2` until a watch has shown all devices connected.
    fn race(&mut self, contestant: &mut Contestant, devices: &[Device]) -> Result<Duration> {
        // One watch for all when they are many: the store looks at every watch at every write.
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
            contestant.set_off(self, device)?;
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
        contestant.come_to_rest()?;
        self.watcher.unwatch(&watched, "stopwatch")?;
        Ok(time)
    }

    /// Removes the devices, and waits until nothing of them is left.
    pub(super) fn clear(&mut self, contestant: &mut Contestant, devices: &[Device]) -> Result<()> {
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
                        "loop devices stay attached\n{}",
                        contestant.log()
                    );
                    thread::sleep(Duration::from_millis(2));
                }
            }
            Kind::Vif => {
                if contestant.process().is_some() {
                    while fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif"))?.next().is_some() {
                        ensure!(Instant::now() < until, "links stay on the bridge\n{}", contestant.log());
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

/// Runs these lines of `ip`, in the namespace that this program is in.
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
