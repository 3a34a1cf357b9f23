//! Benchmark of each original script and its shim with the daemon: how long the toolstack waits for them.
//!
//! Both are started as libxl starts them, by a command that enters the namespace each time. An empty program is started
//! and measured in the same way.

use std::{
    fmt,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use xenplug_tests::{
    differential::{ABSENT, Fixture, Lab, Step, Who},
    harness::Device,
};

const DISK: Device = Device::disk(3, 0);
const VIF: Device = Device::vif(3, 0);

/// Script and situation, measured when the device is added and when it is removed.
#[derive(Clone, Copy, Debug)]
struct Workload {
    script: &'static str,
    situation: &'static str,
    /// Steps that run once, before the first device.
    setting: &'static [Step],
    device: Device,
    nodes: &'static [(&'static str, &'static str)],
    /// True for a script that Xen 4.20 has and Xen 4.17 has not: the workload runs on Debian 13 alone.
    newer: bool,
    /// Additional arguments after `add` and `remove`.
    more: [&'static str; 2],
    /// Step that cleans up what the original leaves after each removal.
    after: Option<Step>,
}

impl Workload {
    const fn new(
        script: &'static str,
        situation: &'static str,
        setting: &'static [Step],
        device: Device,
        nodes: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self {
            script,
            situation,
            setting,
            device,
            nodes,
            newer: false,
            more: ["", ""],
            after: None,
        }
    }
}

const IMAGE: Step = Step::Sh("truncate -s 4M $D/a.img");
const BLOCK: Step =
    Step::Sh("truncate -s 4M $D/disk.img; loop=$(losetup -f --show $D/disk.img); mknod $D/dev b 7 ${loop#/dev/loop}");
const BRIDGE: Step = Step::Sh("ip link add xenbr0 type bridge; ip link set xenbr0 up");

const UPLINK: Step =
    Step::Sh("ip link add eth0 type veth peer name world; ip address add 192.168.7.1/24 dev eth0; ip link set eth0 up");

/// Returns the step that writes a disk of another guest into the store.
const fn other_disk(index: u32) -> Step {
    Step::Device(
        Device::disk(4, index),
        &[("physical-device", "1:1"), ("hotplug-status", "connected")],
    )
}

const WORKLOADS: &[Workload] = &[
    Workload::new("block", "an image file", &[IMAGE], DISK, &[]),
    Workload::new("block", "a block device", &[BLOCK], DISK, &[("params", "$D/dev")]),
    Workload::new(
        "block",
        "a block device, beside 10 disks",
        &[
            BLOCK,
            other_disk(0),
            other_disk(1),
            other_disk(2),
            other_disk(3),
            other_disk(4),
            other_disk(5),
            other_disk(6),
            other_disk(7),
            other_disk(8),
            other_disk(9),
        ],
        DISK,
        &[("params", "$D/dev")],
    ),
    Workload::new("vif-bridge", "a vif", &[BRIDGE], VIF, &[]),
    Workload::new(
        "vif-bridge",
        "a vif with two addresses",
        &[BRIDGE],
        VIF,
        &[("ip", "10.0.0.2 10.0.0.3")],
    ),
    Workload::new(
        "vif-route",
        "a vif with an address",
        &[UPLINK],
        VIF,
        &[
            ("script", "/etc/xen/scripts/vif-route"),
            ("bridge", ABSENT),
            ("ip", "10.0.0.2"),
        ],
    ),
    Workload::new(
        "vif-nat",
        "a vif",
        &[],
        VIF,
        &[("script", "/etc/xen/scripts/vif-nat"), ("bridge", ABSENT)],
    ),
    Workload::new(
        "block-dummy",
        "an image file",
        &[IMAGE],
        DISK,
        &[("script", "/etc/xen/scripts/block-dummy"), ("params", "dummy:$D/a.img")],
    ),
    Workload {
        newer: true,
        ..Workload::new(
            "block-tap",
            "an image file",
            &[Step::Helper("tap-ctl"), IMAGE],
            Device::tap(3, 0),
            &[],
        )
    },
    Workload::new(
        "block-iscsi",
        "a target",
        &[Step::Helper("iscsiadm")],
        DISK,
        &[
            ("script", "/etc/xen/scripts/block-iscsi"),
            ("params", "iqn=iqn.2026-01.example:$N,portal=192.0.2.1"),
        ],
    ),
    // block-nbd takes arguments that libxl does not pass. It reports success although the device stays connected.
    Workload {
        more: [" san.example 2000", " /dev/loop0"],
        after: Some(Step::Sh("rm -f $H/nbd-client.d/nbd*")),
        ..Workload::new(
            "block-nbd",
            "a server",
            &[Step::Helper("nbd-client")],
            DISK,
            &[("script", "/etc/xen/scripts/block-nbd"), ("params", "san.example 2000")],
        )
    },
    Workload::new(
        "vif-openvswitch",
        "a vif",
        &[Step::Switch],
        VIF,
        &[("script", "/etc/xen/scripts/vif-openvswitch"), ("bridge", "ovsbr0")],
    ),
    Workload::new("vscsi", "a device", &[], Device::scsi(3), &[]),
];

/// Median times of an original script and its shim.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Script, action and situation, or the empty program.
    pub what: String,
    /// Time of the original.
    pub original: Duration,
    /// Time of the shim with the daemon; `None` for the empty program.
    pub ours: Option<Duration>,
}

/// Measurements of all scripts.
#[derive(Clone, Debug, Default)]
pub struct Pairs(Vec<Pair>);

/// Measures each script `repeat` times.
pub fn measure(repeat: u32, mut say: impl FnMut(&str)) -> Result<Pairs> {
    let lab = &Lab::new()?;
    let mut pairs = vec![empty_program(lab, repeat)?];
    for workload in WORKLOADS {
        if workload.newer && lab.root().version() < 13 {
            continue;
        }
        let (original, ours) = (
            side(lab, Who::Original, workload, repeat)?,
            side(lab, Who::Ours, workload, repeat)?,
        );
        let words = if workload.device.is_vif() {
            ["online", "offline"]
        } else {
            ["add", "remove"]
        };
        for ((word, original), ours) in words.into_iter().zip(original).zip(ours) {
            let what = format!("{} {word}, {}", workload.script, workload.situation);
            say(&format!(
                "{what}: {} and {}",
                milliseconds(original),
                milliseconds(ours)
            ));
            pairs.push(Pair {
                what,
                original,
                ours: Some(ours),
            });
        }
    }
    Ok(Pairs(pairs))
}

fn empty_program(lab: &Lab, repeat: u32) -> Result<Pair> {
    let fixture = Fixture::new(lab, Who::Original)?;
    let mut times = Vec::new();
    for _ in 0..repeat.max(1) {
        let mut command = fixture.namespace().command("true");
        let start = Instant::now();
        let status = command.stdin(Stdio::null()).status().context("true")?;
        times.push(start.elapsed());
        ensure!(status.success(), "true: {status}");
    }
    Ok(Pair {
        what: "an empty program".to_owned(),
        original: median(times),
        ours: None,
    })
}

/// Returns the median times to add and to remove a device.
fn side(lab: &Lab, who: Who, workload: &Workload, repeat: u32) -> Result<[Duration; 2]> {
    let mut fixture = Fixture::new(lab, who)?;
    workload.setting.iter().try_for_each(|step| fixture.take(step))?;
    let [up, down] = if workload.device.is_vif() {
        ["online type_if=vif", "offline type_if=vif"]
    } else {
        ["add", "remove"]
    };
    let (up, down) = (up.to_owned() + workload.more[0], down.to_owned() + workload.more[1]);
    let (mut ups, mut downs) = (Vec::new(), Vec::new());
    for _ in 0..repeat.max(1) {
        fixture.take(&Step::Device(workload.device, workload.nodes))?;
        ups.push(timed(&mut fixture, workload, &up)?);
        // The guest closes the device before libxl runs the script, so the daemon has released it by then.
        fixture.take(&Step::Close(workload.device))?;
        downs.push(timed(&mut fixture, workload, &down)?);
        fixture.take(&Step::Forget(workload.device))?;
        if workload.device.is_vif() {
            // netback removes the interface; the originals rely on that.
            fixture.take(&Step::Sh("ip link delete vif3.0"))?;
        }
        workload.after.iter().try_for_each(|step| fixture.take(step))?;
    }
    Ok([median(ups), median(downs)])
}

fn timed(fixture: &mut Fixture<'_>, workload: &Workload, words: &str) -> Result<Duration> {
    let start = Instant::now();
    let ended = fixture.run(&workload.device, words)?;
    let taken = start.elapsed();
    ensure!(
        ended == 0,
        "{} {words}, {}: exit {ended}\n{}",
        workload.script,
        workload.situation,
        fixture.account()
    );
    Ok(taken)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| script | original | ours | |")?;
        writeln!(f, "| --- | --- | --- | --- |")?;
        for Pair { what, original, ours } in &self.0 {
            let (ours, times) = match ours {
                Some(ours) => {
                    let times = original.as_secs_f64() / ours.as_secs_f64();
                    (milliseconds(*ours), format!("{times:.0} times"))
                }
                None => ("the same".to_owned(), String::new()),
            };
            writeln!(f, "| {what} | {} | {ours} | {times} |", milliseconds(*original))?;
        }
        Ok(())
    }
}
