//! `block-nbd` and `block-enbd`: disks on NBD servers.

use xenplug_tests::{
    cases,
    differential::{
        ABSENT, Case, Difference, Step,
        table::{close, device, differs, remove, run},
    },
    harness::Device,
};

const N: Device = Device::disk(3, 0);
const M: Device = Device::disk(4, 0);
const O: Device = Device::disk(5, 0);

const CLIENT: Step = Step::Helper("nbd-client");
const SCRIPT: (&str, &str) = ("script", "/etc/xen/scripts/block-nbd");
const SERVER: (&str, &str) = ("params", "san.example 2000");

/// Returns the step that runs the script as xend did, with the server among the arguments.
const fn add(device: Device, code: i32) -> Step {
    Step::Run(device, "add san.example 2000", code)
}

const ASKED: Difference = Difference {
    original: &[],
    ours: &["nbd-client: -c *"],
    because: "whether a device is free is asked before it is claimed: the original tries to connect each",
};

const TRIED: Difference = Difference {
    original: &["nbd-client: san.example 2000 <device *"],
    ours: &["nbd-client: san.example 2000 <device 0 of nbd-client>"],
    because: "a device that is connected is not tried",
};

pub(crate) const CASES: &[Case] = cases! {
    "a server, as libxl runs the script": [CLIENT, device(N, &[SCRIPT, SERVER]), run(N, "add", 1)] => [
        differs(
            &["nbd-client: <device 0 of nbd-client>", "nbd-client: <device 1 of nbd-client>", "run 1, add: exit 1"],
            &[
                "node vbd/3/51712/hotplug-status = connected", "node vbd/3/51712/physical-device = *",
                "node vbd/3/51712/physical-device-path = <device 0 of nbd-client>", "* connected when it had: *",
                "nbd-client: -c *", "nbd-client: san.example *", "run 1, add: exit 0"
            ],
            "a fault: the original wants the server in arguments that libxl does not give",
        ),
    ];
    "a server, as xend ran the script": [CLIENT, device(N, &[SCRIPT, SERVER]), add(N, 0)] => [ASKED];
    "two disks of a server's": [
        CLIENT, device(N, &[SCRIPT, SERVER]), device(M, &[SCRIPT, SERVER]), add(N, 0), add(M, 0)
    ] => [ASKED, TRIED];
    "more disks than devices": [
        CLIENT, device(N, &[SCRIPT, SERVER]), device(M, &[SCRIPT, SERVER]), device(O, &[SCRIPT, SERVER]), add(N, 0),
        add(M, 0), add(O, 1)
    ] => [
        ASKED,
        TRIED,
        differs(
            &[],
            &[
                "node vbd/5/51712/hotplug-error = <text>", "node vbd/5/51712/hotplug-status = error",
                "nbd-client: san.example 2000 <device 1 of nbd-client>"
            ],
            "the original fails without a word in the store",
        ),
    ];
    "a server that refuses": [
        CLIENT, device(N, &[SCRIPT, ("params", "refused.example 2000")]), run(N, "add refused.example 2000", 1)
    ] => [
        ASKED,
        differs(
            &["nbd-client: refused.example 2000 <device 1 of nbd-client>"],
            &["node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error"],
            "the original asks once for each device, and fails without a word in the store",
        ),
    ];
    "no nbd-client": [device(N, &[SCRIPT, SERVER]), add(N, 1)] => [
        differs(
            &[],
            &["node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error"],
            "the original fails without a word in the store",
        ),
    ];
    "no params of a server": [CLIENT, device(N, &[SCRIPT, ("params", ABSENT)]), run(N, "add", 1)] => [
        differs(
            &["nbd-client: <device 0 of nbd-client>", "nbd-client: <device 1 of nbd-client>"],
            &["node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error"],
            "the original fails without a word in the store",
        ),
    ];
    "a server, added twice": [CLIENT, device(N, &[SCRIPT, SERVER]), add(N, 0), add(N, 0)] => [
        ASKED,
        differs(
            &[
                "nbd-client: san.example 2000 <device *", "node vbd/3/51712/physical-device = *1.img>",
                "node vbd/3/51712/physical-device-path = <device 1 of nbd-client>", "* connected when it had: * x 2"
            ],
            &[
                "nbd-client: san.example 2000 <device 0 of nbd-client>", "node vbd/3/51712/physical-device = *0.img>",
                "node vbd/3/51712/physical-device-path = <device 0 of nbd-client>",
                "* connected when it had: physical-device physical-device-path"
            ],
            "a fault: the original connects a second device, and leaks the first",
        ),
    ];
    "a server's disk, added and removed": [CLIENT, device(N, &[SCRIPT, SERVER]), add(N, 0), close(N), remove(N, 1)] => [
        ASKED,
        differs(
            &[
                "node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error",
                "run 2, remove: exit 1", "nbd-client: -d"
            ],
            &[
                "node vbd/3/51712/hotplug-status = disconnected", "run 2, remove: exit 0",
                "nbd-client: -d <device 0 of nbd-client>"
            ],
            "a fault: the original wants the device in an argument that libxl does not give, and leaves it connected",
        ),
    ];
    "a server of an enhanced network block device": [
        CLIENT, device(N, &[("script", "/etc/xen/scripts/block-enbd"), SERVER]), add(N, 1)
    ] => [
        ASKED,
        differs(
            &["nbd-client: san.example:2000 /dev/nd*", "run 1, add san.example 2000: exit 1"],
            &[
                "node vbd/3/51712/hotplug-status = connected", "node vbd/3/51712/physical-device = *",
                "node vbd/3/51712/physical-device-path = <device 0 of nbd-client>", "* connected when it had: *",
                "nbd-client: san.example 2000 *", "run 1, add san.example 2000: exit 0"
            ],
            "the module of such devices ended with Linux 2.6: NBD's serve",
        ),
    ];
};
