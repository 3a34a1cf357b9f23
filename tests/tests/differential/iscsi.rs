//! `block-iscsi`: disks on iSCSI targets.

use xenplug_tests::{
    cases,
    differential::{
        ABSENT, Case, Step,
        table::{add, close, differs, remove, sh, write},
    },
    harness::Device,
};

use super::DISCONNECTED;

const I: Device = Device::disk(3, 0);

const ISCSIADM: Step = Step::Helper("iscsiadm");
const SCRIPT: (&str, &str) = ("script", "/etc/xen/scripts/block-iscsi");
const TARGET: (&str, &str) = ("params", "iqn=iqn.2026-01.example:$N,portal=192.0.2.1");
const DEVICE: Step = Step::Device(I, &[SCRIPT, TARGET]);

/// Returns the step that writes a device with another target, or none.
const fn params(text: &'static [(&'static str, &'static str)]) -> Step {
    Step::Device(I, text)
}

pub(crate) const CASES: &[Case] = cases! {
    "a target": [ISCSIADM, DEVICE, add(I, 0)];
    "a target, read-only": [ISCSIADM, params(&[SCRIPT, TARGET, ("mode", "r")]), add(I, 0)];
    "a target by several paths": [
        ISCSIADM, params(&[SCRIPT, ("params", "iqn=iqn.2026-01.example:$N,portal=192.0.2.1,multipath=y")]), add(I, 0)
    ] => [
        differs(
            &["node vbd/3/51712/physical-device-path = /dev/mapper/mpath-$N"],
            &["node vbd/3/51712/physical-device-path = <loop on *"],
            "links are followed once: the path is that of the device which was opened and claimed",
        ),
    ];
    "several paths, or perhaps not": [
        ISCSIADM, params(&[SCRIPT, ("params", "iqn=iqn.2026-01.example:$N,portal=192.0.2.1,multipath=perhaps")]),
        add(I, 1)
    ];
    "no target": [ISCSIADM, params(&[SCRIPT, ("params", "portal=192.0.2.1")]), add(I, 1)];
    "no portal": [ISCSIADM, params(&[SCRIPT, ("params", "iqn=iqn.2026-01.example:$N")]), add(I, 1)];
    "no params of a target": [ISCSIADM, params(&[SCRIPT, ("params", ABSENT)]), add(I, 1)];
    "a target that the portal does not have": [
        ISCSIADM, params(&[SCRIPT, ("params", "iqn=iqn.2026-01.example:$N-other,portal=192.0.2.1")]), add(I, 1)
    ];
    "a portal that does not answer": [ISCSIADM, sh("touch $H/iscsiadm.d/unreachable"), DEVICE, add(I, 1)];
    "a target that lets nobody log in": [ISCSIADM, sh("touch $H/iscsiadm.d/refused"), DEVICE, add(I, 1)];
    "a target with a session already": [
        ISCSIADM, sh("echo \"tcp: [1] 192.0.2.1:3260,1 iqn.2026-01.example:$N (non-flash)\" >$H/iscsiadm.d/sessions"),
        DEVICE, add(I, 1)
    ] => [
        differs(
            &["node vbd/3/51712/hotplug-status = error"],
            &["node vbd/3/51712/hotplug-status = busy"],
            "what somebody else uses is `busy`",
        ),
    ];
    "a session with a target whose name goes on": [
        ISCSIADM, sh("echo \"tcp: [1] 192.0.2.1:3260,1 iqn.2026-01.example:$N-2 (non-flash)\" >$H/iscsiadm.d/sessions"),
        DEVICE, add(I, 1)
    ] => [
        differs(
            &[
                "node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error",
                "run 1, add: exit 1"
            ],
            &[
                "node vbd/3/51712/hotplug-status = connected", "node vbd/3/51712/physical-device = *",
                "node vbd/3/51712/physical-device-path = *", "* connected when it had: *", "iscsiadm: -m discovery *",
                "iscsiadm: * --login", "loop on *", "run 1, add: exit 0"
            ],
            "a fault: the original takes a target for another one whose name begins with its own",
        ),
    ];
    "no iscsiadm": [DEVICE, add(I, 1)];
    "a target, added twice": [ISCSIADM, DEVICE, add(I, 0), add(I, 1)] => [
        differs(
            &[
                "iscsiadm: -m session x 2", "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error", "run 2, add: exit 1"
            ],
            &["iscsiadm: -m session", "node vbd/3/51712/hotplug-status = connected", "run 2, add: exit 0"],
            "a fault: to the original its own session is another's, and a disk that works is reported as broken",
        ),
    ];
    "a target, added and removed": [ISCSIADM, DEVICE, add(I, 0), close(I), remove(I, 0)] => [DISCONNECTED];
    "a target that cannot be logged out of": [
        ISCSIADM, DEVICE, add(I, 0), sh("touch $H/iscsiadm.d/stuck"), close(I), remove(I, 1)
    ] => [
        differs(
            &[
                "node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error",
                "iscsiadm: * --logout"
            ],
            &["node vbd/3/51712/hotplug-status = connected", "iscsiadm: * --logout*"],
            "what could not be taken down stays, and is tried again: who called is told, and the store when it is done",
        ),
    ];
    "a target, removed after its params were": [
        ISCSIADM, DEVICE, add(I, 0), write(I, "params", ABSENT), close(I), remove(I, 1)
    ] => [
        differs(
            &[
                "loop on *", "node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error",
                "run 2, remove: exit 1"
            ],
            &["node vbd/3/51712/hotplug-status = disconnected", "iscsiadm: * --logout", "run 2, remove: exit 0"],
            "a fault: the original needs the node to take down what it has set up, and leaks its session",
        ),
    ];
};
