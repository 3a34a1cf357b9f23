//! Disks on NBD servers, with a stand-in for nbd-client where the kernel has no module for the real one.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    loud::say,
    rig::{Device, Disk, Machine, Nodes},
};

use super::{helper::Helper, kill_in_the_middle, machine_with, physical_device};

/// Keeps for each device whom it is connected to.
const CLIENT: &str = r#"
case "$*" in
"-c "*)
    [ -e $here/${2##*/} ] || exit 1
    echo 1 ;;
"-d "*)
    [ -e $here/${2##*/} ] || { echo "Error: not connected" >&2; exit 1; }
    rm $here/${2##*/} ;;
*)
    [ $1 != refused.example ] || { echo "Error: Socket failed: Connection refused" >&2; exit 1; }
    [ ! -e $here/${3##*/} ] || { echo "Error: in use" >&2; exit 1; }
    echo "$1 $2" >$here/${3##*/}
    [ $1 != slow.example ] || sleep 100 ;;
esac
"#;

/// The first of the devices, which are two: beyond what the kernel's module would make.
const FIRST: u32 = 60;

/// A machine with NBD devices that are loop devices by another name.
struct Lan {
    machine: Machine,
    client: Helper,
}

impl Lan {
    fn new() -> Result<Self> {
        say("NOTE: nbd-client is a stand-in that keeps its connections: this kernel has no nbd. Its calls are checked");
        let mut client = None;
        let machine = machine_with(|machine| {
            let helper = Helper::new(machine.directory(), "nbd-client", CLIENT)?;
            for number in FIRST..FIRST + 2 {
                let image = machine.image(&format!("nbd{number}.img"), 4)?;
                let attached = Command::new("losetup").args(["--find", "--show"]).arg(image).output()?;
                let device = String::from_utf8(attached.stdout)?;
                let number_of = physical_device(device.trim())?;
                let minor = number_of.rsplit_once(':').context("a number")?.1;
                let minor = u32::from_str_radix(minor, 16)?.to_string();
                let node = format!("/dev/nbd{number}");
                let made = Command::new("mknod").args([&node, "b", "7", &minor]).status()?;
                ensure!(made.success(), "mknod {node}: {made}");
            }
            let rules = helper.rules(&[
                &["-c", "/dev/nbd*"],
                &["-d", "/dev/nbd*"],
                &["*", "*", "/dev/nbd*"],
                &["*", "*", "/dev/nbd*", "-N", "*"],
            ]);
            client = Some(helper);
            Ok(format!(
                r#"
[plugin.block-nbd]
component = "block-nbd.wasm"
kinds = ["vbd"]
scripts = ["block-nbd", "block-enbd"]
[plugin.block-nbd.grant]
block = [{{ path = "/dev/nbd*", access = "rw" }}]
process = [{rules}]
[plugin.block-nbd.config]
devices = {}
"#,
                FIRST + 2
            ))
        })?;
        let client = client.context("the table was made")?;
        // What is connected by somebody else.
        for number in 0..FIRST {
            if Path::new(&format!("/dev/nbd{number}")).exists() {
                fs::write(client.file(&format!("nbd{number}")), "")?;
            }
        }
        Ok(Self { machine, client })
    }

    fn changes(&self) -> Vec<String> {
        let calls = self.client.calls().into_iter();
        calls.filter(|call| !call.starts_with("-c ")).collect()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for number in FIRST..FIRST + 2 {
            let _ = fs::remove_file(format!("/dev/nbd{number}"));
        }
    }
}

fn on(target: &str) -> Nodes {
    Disk::on(Path::new(target)).with("script", "/etc/xen/scripts/block-nbd")
}

#[test]
fn disks_on_servers_get_devices_of_their_own_and_give_them_back() -> Result<()> {
    let mut lan = Lan::new()?;
    let baseline = lan.machine.baseline()?;
    let disks = [Device::disk(3, 0), Device::disk(4, 0)];
    for (disk, target) in disks.iter().zip(["nbd://san.example/disk", "10.0.0.1 2000"]) {
        lan.machine.plug(disk, &on(target))?.done()?;
        lan.machine.expect_connected(disk)?;
    }
    for (disk, number) in disks.iter().zip(FIRST..) {
        let path = format!("/dev/nbd{number}");
        assert_eq!(lan.machine.node(disk, "physical-device-path")?.as_ref(), Some(&path));
        assert_eq!(
            lan.machine.node(disk, "physical-device")?,
            Some(physical_device(&path)?)
        );
    }
    let third = Device::disk(5, 0);
    let answer = lan.machine.plug(&third, &on("san.example:2000"))?;
    answer.says("failed", &["block-nbd", "no NBD device is free"])?;
    lan.machine.end_guest_of_dom0(3, &disks[..1])?;
    lan.machine.unplug(&third)?.done()?;
    // By the node `type`, as block leaves it to block-nbd.
    let by_type = Disk::on(Path::new("san.example:2000")).with("type", "nbd");
    lan.machine.plug(&third, &by_type)?.done()?;
    lan.machine.end_guest_of_dom0(4, &disks[1..])?;
    lan.machine.end_guest_of_dom0(5, &[third])?;
    assert_eq!(
        lan.changes(),
        [
            "san.example 10809 /dev/nbd60 -N disk",
            "10.0.0.1 2000 /dev/nbd61",
            "-d /dev/nbd60",
            "san.example 2000 /dev/nbd60",
            "-d /dev/nbd61",
            "-d /dev/nbd60",
        ]
    );
    // A server that does not answer is told in the client's words, and asked once.
    lan.client.forget_calls()?;
    let answer = lan.machine.plug(&third, &on("refused.example:2000"))?;
    answer.says("failed", &["block-nbd", "Connection refused"])?;
    lan.machine.end_guest_of_dom0(5, &[third])?;
    assert_eq!(lan.changes(), ["refused.example 2000 /dev/nbd60"]);

    // A daemon that dies between disconnects what was connected meanwhile.
    lan.client.forget_calls()?;
    lan.machine.attach(&third, &on("slow.example:2000"))?;
    kill_in_the_middle(&mut lan.machine, &lan.client, &third, "slow.example")?;
    assert_eq!(lan.changes(), ["slow.example 2000 /dev/nbd60", "-d /dev/nbd60"]);
    lan.machine.toolstack().forget(&third)?;
    lan.machine.toolstack().bury(5)?;
    baseline.assert_same(&lan.machine)
}
