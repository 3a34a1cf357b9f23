//! Disks on NBD servers, with a fake program for nbd-client, because the kernel may lack the module nbd.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    harness::{Call, Device, Disk, Helper, Nodes, TestHost, handlers},
    loud::say,
};

use super::{host_with, kill_in_the_middle, physical_device, until};

/// Host with NBD devices, which are links to loop devices.
struct Lan {
    client: Helper,
    host: TestHost,
}

impl Lan {
    fn new() -> Result<Self> {
        say("NOTE: nbd-client is a fake that keeps its connections: this kernel has no nbd. Its calls are checked");
        let mut client = None;
        let host = host_with(|_, helpers| {
            client = Some(Helper::nbd_client(helpers, 2)?);
            Ok(handlers::block_nbd(helpers))
        })?;
        let client = client.context("the table was made")?;
        Ok(Self { client, host })
    }

    /// Returns the calls of nbd-client that have an effect, with `A` and `B` for the devices.
    fn changes(&self) -> Vec<String> {
        let devices = self.client.devices();
        let calls = self.client.calls().into_iter();
        calls
            .filter(|call| !call.starts_with("-c "))
            .map(|call| call.replace(&devices[0], "A").replace(&devices[1], "B"))
            .collect()
    }
}

fn on(target: &str) -> Nodes {
    Disk::on(Path::new(target)).with("script", "/etc/xen/scripts/block-nbd")
}

#[test]
fn nbd_disks_acquire_and_release_devices_of_their_own() -> Result<()> {
    let mut lan = Lan::new()?;
    let baseline = lan.host.baseline()?;
    let disks = [Device::disk(3, 0), Device::disk(4, 0)];
    for (disk, target) in disks.iter().zip(["nbd://san.example/disk", "10.0.0.1 2000"]) {
        lan.host.plug(disk, &on(target))?.done()?;
        lan.host.expect_connected(disk)?;
    }
    for (disk, path) in disks.iter().zip(lan.client.devices()) {
        assert_eq!(lan.host.node(disk, "physical-device-path")?.as_ref(), Some(&path));
        assert_eq!(lan.host.node(disk, "physical-device")?, Some(physical_device(&path)?));
    }
    let third = Device::disk(5, 0);
    let answer = lan.host.plug(&third, &on("san.example:2000"))?;
    answer.says("failed", &["block-nbd", "no NBD device is free"])?;
    lan.host.end_guest_of_dom0(3, &disks[..1])?;
    lan.host.unplug(&third)?.done()?;
    // By the node `type`, for which the script block calls block-nbd.
    let by_type = Disk::on(Path::new("san.example:2000")).with("type", "nbd");
    lan.host.plug(&third, &by_type)?.done()?;
    lan.host.end_guest_of_dom0(4, &disks[1..])?;
    lan.host.end_guest_of_dom0(5, &[third])?;
    assert_eq!(
        lan.changes(),
        [
            "san.example 10809 A -N disk",
            "10.0.0.1 2000 B",
            "-d A",
            "san.example 2000 A",
            "-d B",
            "-d A",
        ]
    );
    // For a server that refuses, the error has the client's text, and the handler runs once.
    lan.client.forget_calls()?;
    let answer = lan.host.plug(&third, &on("refused.example:2000"))?;
    answer.says("failed", &["block-nbd", "Connection refused"])?;
    lan.host.end_guest_of_dom0(5, &[third])?;
    assert_eq!(lan.changes(), ["refused.example 2000 A"]);

    // After a crash during the connection, the daemon disconnects the device.
    lan.client.forget_calls()?;
    lan.host.attach(&third, &on("slow.example:2000"))?;
    kill_in_the_middle(&mut lan.host, &lan.client, &third, "slow.example")?;
    assert_eq!(lan.changes(), ["slow.example 2000 A", "-d A"]);
    lan.host.toolstack().forget(&third)?;
    lan.host.toolstack().bury(5)?;
    baseline.assert_same(&lan.host)
}

#[test]
fn failed_nbd_disconnect_is_retried_until_it_succeeds() -> Result<()> {
    let mut lan = Lan::new()?;
    let baseline = lan.host.baseline()?;
    let disk = Device::disk(3, 0);
    lan.host.plug(&disk, &on("san.example:2000"))?.done()?;
    fs::write(lan.client.file("stuck"), "")?;
    let answer = lan.host.unplug(&disk)?;
    answer.says("failed", &["-d /dev/nbd", "Failed to disconnect"])?;
    let connected = lan.client.file(lan.client.devices()[0].trim_start_matches("/dev/"));
    ensure!(connected.exists(), "it is disconnected");
    fs::remove_file(lan.client.file("stuck"))?;
    until("it is disconnected", || Ok(!connected.exists()))?;
    lan.host.toolstack().bury(3)?;
    baseline.assert_same(&lan.host)
}

#[test]
fn concurrent_nbd_connects_get_a_device_each() -> Result<()> {
    let mut lan = Lan::new()?;
    let disks = [Device::disk(3, 0), Device::disk(4, 0)];
    for disk in &disks {
        lan.host.attach(disk, &on("hesitant.example:2000"))?;
        lan.host.expect_state(disk, "2")?;
    }
    let calls: Vec<Call> = disks
        .iter()
        .map(|disk| lan.host.call(disk, "add"))
        .collect::<Result<_>>()?;
    calls.into_iter().try_for_each(|call| call.answer()?.done())?;
    let mut changes = lan.changes();
    changes.sort();
    assert_eq!(changes, ["hesitant.example 2000 A", "hesitant.example 2000 B"]);
    lan.host.end_guest_of_dom0(3, &disks[..1])?;
    lan.host.end_guest_of_dom0(4, &disks[1..])
}

#[test]
fn foreign_or_unknown_nbd_device_is_left_alone() -> Result<()> {
    let mut lan = Lan::new()?;
    let disk = Device::disk(3, 0);
    let [first, second] = [0, 1].map(|index| lan.client.devices()[index].clone());
    fs::write(lan.client.file(first.trim_start_matches("/dev/")), "")?;
    lan.host.plug(&disk, &on("san.example:2000"))?.done()?;
    assert_eq!(lan.host.node(&disk, "physical-device-path")?, Some(second));
    lan.host.unplug(&disk)?.done()?;
    assert_eq!(lan.changes(), ["san.example 2000 B", "-d B"]);

    lan.client.forget_calls()?;
    fs::write(lan.client.file("unreadable"), "")?;
    let answer = lan.host.plug(&disk, &on("san.example:2000"))?;
    answer.says("failed", &["nbd-client -c /dev/nbd", "could not read"])?;
    assert_eq!(lan.changes(), [""; 0]);
    lan.host.end_guest_of_dom0(3, &[disk])
}
