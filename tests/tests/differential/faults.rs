//! Known faults of the original scripts: each test shows that the original has the fault, and the daemon does not.

use std::{
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    differential::{Fixture, Lab, Step, Who},
    harness::Device,
};

const DISK: Device = Device::disk(3, 0);
const VIF: Device = Device::vif(3, 0);
const BOTH: [Who; 2] = [Who::Original, Who::Ours];

/// Runs steps on one side.
fn after<'a>(lab: &'a Lab, who: Who, steps: &[Step]) -> Result<Fixture<'a>> {
    let mut tries = 0..20;
    loop {
        let mut fixture = Fixture::new(lab, who)?;
        let done = steps.iter().try_for_each(|step| fixture.take(step));
        if fixture.lost_the_race() && tries.next().is_some() {
            continue;
        }
        return done.map(|()| fixture);
    }
}

/// Waits for the end of a script. Returns `None` if it does not end in time.
fn ended_within(script: &mut Child, timeout: Duration) -> Result<Option<ExitStatus>> {
    let until = Instant::now() + timeout;
    loop {
        match script.try_wait()? {
            None if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
            ended => return Ok(ended),
        }
    }
}

#[test]
fn deleted_image_leaks_no_loop_device() -> Result<()> {
    let lab = Lab::new()?;
    for who in BOTH {
        let mut fixture = after(
            &lab,
            who,
            &[
                Step::Sh("truncate -s 4M $D/a.img"),
                Step::Device(DISK, &[]),
                Step::add(DISK, 0),
                Step::Sh("rm $D/a.img"),
                Step::Close(DISK),
                Step::remove(DISK, 0),
            ],
        )?;
        let leaked = fixture.observed()?.contains("loop on $D/a.img (deleted)");
        assert_eq!(leaked, who == Who::Original, "{who}");
    }
    Ok(())
}

#[test]
fn renamed_vif_mtu_reaches_its_own_guest() -> Result<()> {
    let lab = Lab::new()?;
    for who in BOTH {
        let mut fixture = after(
            &lab,
            who,
            &[
                Step::Sh("ip link add xenbr0 type bridge; ip link set xenbr0 up"),
                Step::Device(VIF, &[("vifname", "web"), ("mtu", "1400")]),
                Step::add(VIF, 0),
            ],
        )?;
        let seen = fixture.observed()?;
        let received = seen.contains("node 3/device/vif/0/mtu = 1400");
        let strayed = seen.contains("node web/device/vif/web/mtu = 1400");
        assert_eq!((received, strayed), (who == Who::Ours, who == Who::Original), "{who}");
    }
    Ok(())
}

/// Counts the store requests of one more attach beside this number of disks.
fn requests_beside(lab: &Lab, who: Who, others: u32) -> Result<usize> {
    let mut fixture = after(
        lab,
        who,
        &[Step::Sh(
            "truncate -s 4M $D/disk.img; loop=$(losetup -f --show $D/disk.img); mknod $D/dev b 7 ${loop#/dev/loop}",
        )],
    )?;
    for index in 1..=others {
        // The nodes that the scripts write. The devices need not exist, because only their numbers are compared.
        let nodes = &[("physical-device", "1:1"), ("hotplug-status", "connected")];
        fixture.take(&Step::Device(Device::disk(4, index), nodes))?;
    }
    // The first attach makes the daemon read the new disks.
    let second = Device::disk(3, 1);
    for disk in [DISK, second] {
        fixture.take(&Step::Device(disk, &[("params", "$D/dev")]))?;
    }
    fixture.take(&Step::add(DISK, 0))?;
    let before = fixture.requests()?;
    let ended = fixture.run(&second, "add")?;
    ensure!(ended == 0, "{who}: exit {ended}\n{}", fixture.account());
    Ok(fixture.requests()? - before)
}

#[test]
fn sharing_check_cost_is_independent_of_disk_count() -> Result<()> {
    let lab = Lab::new()?;
    for who in BOTH {
        let (few, many) = (requests_beside(&lab, who, 5)?, requests_beside(&lab, who, 25)?);
        // The original reads `physical-device` of each disk. The daemon's requests vary by a few: a watch may fire
        // once more.
        let grows = many >= few + 20;
        assert_eq!(grows, who == Who::Original, "{who}: {few}, then {many}");
        assert!(who == Who::Original || many < few + 10, "{few}, then {many}");
    }
    Ok(())
}

#[test]
fn held_xtables_lock_does_not_block_a_vif() -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let lab = Lab::with_iptables("xtables-legacy-multi")?;
    for who in BOTH {
        let fixture = after(
            &lab,
            who,
            &[
                Step::Sh("ip link add xenbr0 type bridge; ip link set xenbr0 up"),
                Step::Device(VIF, &[("ip", "10.0.0.2")]),
            ],
        )?;
        let mut holder = fixture
            .namespace()
            .command("flock")
            .args(["--no-fork", "/run/xtables.lock", "sh", "-c", "echo held; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .context("flock (util-linux)")?;
        let mut word = [0; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().context("it has an output")?, &mut word)?;
        let mut script = fixture.script(&VIF, "online type_if=vif")?.spawn()?;
        let ended = ended_within(&mut script, TIMEOUT)?;
        holder.kill()?;
        holder.wait()?;
        // Once the lock is released, the script ends.
        let status = script.wait()?;
        assert_eq!(ended.is_none(), who == Who::Original, "{who}: {ended:?}");
        ensure!(status.success(), "{who}: {status}");
    }
    Ok(())
}

#[test]
fn iscsi_target_whose_disk_never_appears_fails() -> Result<()> {
    let lab = Lab::new()?;
    const NODES: &[(&str, &str)] = &[
        ("script", "/etc/xen/scripts/block-iscsi"),
        ("params", "iqn=iqn.2026-01.example:$N,portal=192.0.2.1"),
    ];
    for (who, timeout) in [(Who::Original, 4), (Who::Ours, 30)] {
        let fixture = after(
            &lab,
            who,
            &[
                Step::Helper("iscsiadm"),
                Step::Sh("touch $H/iscsiadm.d/diskless"),
                Step::Device(DISK, NODES),
            ],
        )?;
        let mut script = fixture.script(&DISK, "add")?.spawn()?;
        let ended = ended_within(&mut script, Duration::from_secs(timeout))?;
        script.kill()?;
        script.wait()?;
        // The original counts the seconds, but compares the word `count` with 100.
        assert_eq!(ended.is_none(), who == Who::Original, "{who}: {ended:?}");
    }
    Ok(())
}
