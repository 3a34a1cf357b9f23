//! Workload of the fault suite: one device that is attached and detached repeatedly, with a fault at one system call.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    cases::{Cases, Length, length},
    harness::{Baseline, Device, Disk, Helper, TestHost, Vif, attached_below, handlers},
    loud::say,
    syscall_injector::{Call, Injection, Point, SyscallInjector, why_pure},
};

/// Portal of an iSCSI target, with an address for documentation (RFC 5737), which no host has.
const PORTAL: &str = "192.0.2.1";
/// Time without a call after which the daemon counts as done.
const QUIET: Duration = Duration::from_millis(25);
/// Idle time after which a starting daemon counts as waiting for the store.
const IDLE: Duration = Duration::from_millis(120);
/// Time for a device to reach its state.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);
/// Attempts at a point that the daemon does not reach, because the order of its threads varies.
pub(crate) const TRIES: usize = 3;

/// Ratio of the points of a start that short runs skip, because each needs a restart: one in this number is tried.
const STARTS: usize = 3;

/// Operation on the device whose calls are stepped through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Attach,
    Detach,
    /// The daemon starts again, with the device connected.
    Start,
}

/// Kind of device, and its host.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) host: fn() -> Result<TestHost>,
    pub(crate) attach: fn(&mut TestHost) -> Result<Device>,
    /// Ratio of the points of attach and detach that short runs try: one in this number. Long runs try all.
    pub(crate) one_in: usize,
}

/// A disk on an image file.
pub(crate) const DISK: Subject = Subject {
    host: TestHost::with_daemon,
    attach: |host| host.attach_disk(3, 0),
    one_in: 1,
};

/// A vif on a bridge.
pub(crate) const VIF: Subject = Subject {
    host: TestHost::with_daemon,
    attach: |host| {
        let device = Device::vif(3, 0);
        // With firewall rules, which do not go with the link by themselves.
        host.attach(&device, &Vif::on("xenbr0").with("ip", "10.0.0.2"))?;
        Ok(device)
    },
    one_in: 1,
};

/// A disk on a block device, a loop device of the test's own.
pub(crate) const BLOCK_DEVICE: Subject = Subject {
    host: || {
        let mut host = TestHost::new()?;
        let image = host.image("device.img", 4)?;
        let done = Command::new("losetup").arg("--find").arg(&image).status()?;
        ensure!(done.success(), "losetup: {done}");
        let granted = format!("{:?}", host.images());
        let config = host
            .config()?
            .replacing(&format!("path = {granted}"), "path = \"/dev/loop*\"");
        host.start_daemon(config)?;
        Ok(host)
    },
    attach: |host| {
        let device = Device::disk(3, 0);
        let loops = attached_below(host.directory())?;
        host.attach(&device, &Disk::on(&loops.first().context("no loop device")?.device))?;
        Ok(device)
    },
    one_in: 12,
};

/// A routed vif.
pub(crate) const ROUTED: Subject = Subject {
    host: host_with_uplink,
    attach: |host| attach_vif_of(host, "vif-route"),
    one_in: 12,
};

/// A vif behind NAT.
pub(crate) const NAT: Subject = Subject {
    host: host_with_uplink,
    attach: |host| attach_vif_of(host, "vif-nat"),
    one_in: 12,
};

/// Makes a host with an uplink, and the plugins for routed vifs.
fn host_with_uplink() -> Result<TestHost> {
    let mut host = TestHost::new()?;
    let network = host.namespace();
    network.ip("link add eth0 type veth peer name world")?;
    network.ip("address add 192.0.2.1/24 dev eth0")?;
    network.ip("link set eth0 up")?;
    host.start_daemon(host.config()?.with(handlers::ROUTED))?;
    Ok(host)
}

fn attach_vif_of(host: &mut TestHost, script: &str) -> Result<Device> {
    let device = Device::vif(3, 0);
    let nodes = Vif::on("xenbr0")
        .without("bridge")
        .with("script", format!("/etc/xen/scripts/{script}"));
    host.attach(&device, &nodes.with("ip", "10.1.0.2"))?;
    Ok(device)
}

/// A disk on an iSCSI target, with a fake program for iscsiadm that keeps its sessions.
pub(crate) const TARGET: Subject = Subject {
    host: || {
        // All tests and hosts share /dev, so that the name has a number. Like that after `loop`, it is no part of a
        // call's identity.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut host = TestHost::new()?;
        let number = COUNT.fetch_add(1, Relaxed);
        let iqn = format!("iqn.2026-01.example:loop{}{number:04}", std::process::id());
        let helpers = host.directory().join("helpers");
        host.keep(Helper::iscsiadm(&helpers, PORTAL, &[&iqn])?);
        fs::write(host.directory().join("iqn"), iqn)?;
        host.start_daemon(host.config()?.with(&handlers::block_iscsi(&helpers)))?;
        Ok(host)
    },
    attach: |host| {
        let device = Device::disk(3, 0);
        let iqn = fs::read_to_string(host.directory().join("iqn"))?;
        let nodes = Disk::on(Path::new(&format!("iqn={iqn},portal={PORTAL}")));
        host.attach(&device, &nodes.with("script", "/etc/xen/scripts/block-iscsi"))?;
        Ok(device)
    },
    one_in: 24,
};

/// Host with its daemon, while the device is detached.
pub(crate) struct Workload {
    subject: Subject,
    pub(crate) host: TestHost,
    pub(crate) baseline: Baseline,
    /// State of the host with the device after an attach without faults.
    pub(crate) whole: Baseline,
}

impl Workload {
    fn of(subject: Subject) -> Result<Self> {
        let mut host = (subject.host)()?;
        // After the first attach, threads, the guest and other one-time state exist.
        let device = (subject.attach)(&mut host)?;
        host.expect_connected(&device)?;
        host.detach(&device)?;
        let baseline = host.baseline()?;
        let device = (subject.attach)(&mut host)?;
        host.expect_connected(&device)?;
        let whole = host.baseline()?;
        host.detach(&device)?;
        baseline.assert_same(&host)?;
        Ok(Self {
            subject,
            host,
            baseline,
            whole,
        })
    }

    /// Attaches the device.
    pub(crate) fn attach(&mut self) -> Result<Device> {
        (self.subject.attach)(&mut self.host)
    }

    /// Runs a step to its end or to the point. Returns the device, the calls, and whether the point was reached.
    pub(crate) fn step(&mut self, step: Step, point: Option<&Point>) -> Result<(Device, Vec<Call>, bool)> {
        let device = match step {
            Step::Attach => None,
            Step::Detach | Step::Start => {
                let device = self.attach()?;
                self.host.expect_connected(&device)?;
                Some(device)
            }
        };
        if step == Step::Start {
            self.host.daemon_mut()?.kill()?;
            self.host.xenstored().stall()?;
            // The played kernel cannot stop without the daemon.
            self.begin_start().or_else(|error| {
                self.host.xenstored().resume()?;
                Err(error)
            })?;
        }
        let daemon = self.host.daemon_mut()?.pid();
        let injector = SyscallInjector::begin(daemon, self.host.directory(), point.cloned())?;
        let device = match device {
            None => self.attach()?,
            Some(device) if step == Step::Start => {
                self.host.xenstored().resume()?;
                device
            }
            Some(device) => {
                self.host.toolstack().detach(&device)?;
                device
            }
        };
        let until = Instant::now() + TIMEOUT;
        while !(injector.hit() || self.is_done(step, &device)? && injector.quiet_for(QUIET)) {
            ensure!(
                Instant::now() < until,
                "{step:?} does not end\n{}",
                self.host.daemon_log()
            );
            thread::sleep(Duration::from_millis(2));
        }
        let hit = injector.hit();
        Ok((device, injector.end()?, hit))
    }

    /// Starts the daemon, which waits for the store.
    fn begin_start(&mut self) -> Result<()> {
        let daemon = self.host.daemon_mut()?;
        let log_length = daemon.log().len();
        daemon.launch()?;
        let until = Instant::now() + TIMEOUT;
        let (mut before, mut since) = (None, Instant::now());
        while before.is_none() || since.elapsed() < IDLE {
            let log = daemon.log().split_off(log_length);
            ensure!(Instant::now() < until, "it does not wait for the store\n{log}");
            thread::sleep(Duration::from_millis(5));
            // The daemon loads its plugins before it connects to the store.
            let now = log.contains("loaded").then_some(daemon.processor_ticks()?);
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    fn is_done(&mut self, step: Step, device: &Device) -> Result<bool> {
        if step == Step::Start {
            return self.host.daemon_mut()?.serves();
        }
        let mut node = |name: &str| {
            self.host
                .toolstack()
                .store()
                .find(&format!("{}/{name}", device.backend()))
        };
        Ok(match step {
            Step::Attach => {
                node("hotplug-status")?.as_deref() == Some("connected") && node("state")?.as_deref() == Some("4")
            }
            Step::Detach => node("state")?.is_none(),
            Step::Start => unreachable!("it is done when it serves"),
        })
    }

    /// Collects the calls of a step over several runs, because runs differ. Calls without effect, such as waits of
    /// threads for each other, count only if every run makes them.
    fn calls(&mut self, step: Step) -> Result<BTreeSet<Call>> {
        let (mut all, mut always) = (BTreeSet::new(), None);
        for _ in 0..TRIES {
            let (device, calls, _) = self.step(step, None)?;
            let calls = BTreeSet::from_iter(calls);
            all.extend(calls.iter().cloned());
            always = Some(always.map_or_else(|| calls.clone(), |always| &always & &calls));
            match step {
                Step::Attach | Step::Start => self.host.detach(&device)?,
                Step::Detach => self.host.toolstack().finish(&device, TIMEOUT)?,
            }
            self.baseline.assert_same(&self.host)?;
        }
        let always = always.unwrap_or_default();
        all.retain(|call| why_pure(call).is_none() || always.contains(call));
        all.retain(|call| !call.is_of_another_process());
        Ok(all)
    }
}

/// Tries all points that `choose` selects from the calls of both steps, on several hosts in parallel.
pub(crate) fn every_point(
    name: &str,
    subject: Subject,
    choice: impl Fn(usize, &Call) -> Vec<Injection>,
    check: impl Fn(&mut Workload, Step, &Point) -> Result<bool> + Sync,
) -> Result<()> {
    let mut first = Workload::of(subject)?;
    let mut points = Vec::new();
    let long = length() == Length::Long;
    let one_in = if long { 1 } else { subject.one_in };
    for step in [Step::Attach, Step::Detach, Step::Start] {
        let calls = first.calls(step)?;
        let chosen: Vec<Point> = calls
            .iter()
            .enumerate()
            .flat_map(|(index, call)| {
                choice(index, call).into_iter().map(|injection| Point {
                    call: call.clone(),
                    injection,
                })
            })
            .step_by(match step {
                Step::Attach | Step::Detach => one_in,
                Step::Start if long => 1,
                Step::Start => one_in.max(STARTS),
            })
            .collect();
        say(&format!(
            "{name}: {step:?} makes {} calls, {} points",
            calls.len(),
            chosen.len()
        ));
        points.extend(chosen.into_iter().map(|point| (step, point)));
    }
    ensure!(
        points.len() * one_in > 40,
        "only {} points: does the daemon do anything?",
        points.len()
    );
    let work = Mutex::new((points.into_iter(), Cases::default(), Vec::new()));
    let lock = || work.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let worker = |mut workload: Workload| -> Result<()> {
        loop {
            let next = {
                let mut work = lock();
                if work.1.is_lost() { None } else { work.0.next() }
            };
            let Some((step, point)) = next else { return Ok(()) };
            let reached = (0..TRIES)
                .find_map(|_| {
                    check(&mut workload, step, &point)
                        .map(|reached| reached.then_some(()))
                        .transpose()
                })
                .transpose();
            let failed = reached.is_err();
            let mut work = lock();
            if let Ok(None) = reached {
                work.2.push(point.call.to_string());
            }
            work.1.case(
                &format!("{step:?}, {:?} at {}", point.injection, point.call),
                reached.map(drop),
            );
            drop(work);
            if failed {
                workload = Workload::of(subject)?;
            }
        }
    };
    let hosts = available_parallelism().map_or(2, usize::from).max(2);
    thread::scope(|scope| {
        let others: Vec<_> = (1..hosts)
            .map(|_| scope.spawn(|| worker(Workload::of(subject)?)))
            .collect();
        let mine = worker(first);
        others.into_iter().fold(mine, |so_far, other| match other.join() {
            Ok(done) => so_far.and(done),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let (_, cases, missed) = work.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !missed.is_empty() {
        say(&format!(
            "{name}: {} points were not come to in {TRIES} tries: {}",
            missed.len(),
            missed.join(", ")
        ));
    }
    cases.end()
}
