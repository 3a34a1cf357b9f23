//! `block-iscsi`: disks on iSCSI targets.

use xenplug_tests::{
    differential::{ABSENT, Case, Difference, Step},
    harness::Device,
};

use super::DISCONNECTED;

const I: Device = Device::disk(3, 0);

const ISCSIADM: Step = Step::Helper("iscsiadm");
const SCRIPT: (&str, &str) = ("script", "/etc/xen/scripts/block-iscsi");
const TARGET: (&str, &str) = ("params", "iqn=iqn.2026-01.example:$N,portal=192.0.2.1");
const DEVICE: Step = Step::Device(I, &[SCRIPT, TARGET]);

/// A device whose target is another one, or none.
const fn params(text: &'static [(&'static str, &'static str)]) -> Step {
    Step::Device(I, text)
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a target",
        steps: &[ISCSIADM, DEVICE, Step::add(I, 0)],
        differences: &[],
    },
    Case {
        name: "a target, read-only",
        steps: &[ISCSIADM, params(&[SCRIPT, TARGET, ("mode", "r")]), Step::add(I, 0)],
        differences: &[],
    },
    Case {
        name: "a target by several paths",
        steps: &[
            ISCSIADM,
            params(&[
                SCRIPT,
                ("params", "iqn=iqn.2026-01.example:$N,portal=192.0.2.1,multipath=y"),
            ]),
            Step::add(I, 0),
        ],
        differences: &[Difference {
            original: &["node vbd/3/51712/physical-device-path = /dev/mapper/mpath-$N"],
            ours: &["node vbd/3/51712/physical-device-path = <loop on *"],
            because: "links are followed once: the path is that of the device which was opened and claimed",
        }],
    },
    Case {
        name: "several paths, or perhaps not",
        steps: &[
            ISCSIADM,
            params(&[
                SCRIPT,
                (
                    "params",
                    "iqn=iqn.2026-01.example:$N,portal=192.0.2.1,multipath=perhaps",
                ),
            ]),
            Step::add(I, 1),
        ],
        differences: &[],
    },
    Case {
        name: "no target",
        steps: &[
            ISCSIADM,
            params(&[SCRIPT, ("params", "portal=192.0.2.1")]),
            Step::add(I, 1),
        ],
        differences: &[],
    },
    Case {
        name: "no portal",
        steps: &[
            ISCSIADM,
            params(&[SCRIPT, ("params", "iqn=iqn.2026-01.example:$N")]),
            Step::add(I, 1),
        ],
        differences: &[],
    },
    Case {
        name: "no params of a target",
        steps: &[ISCSIADM, params(&[SCRIPT, ("params", ABSENT)]), Step::add(I, 1)],
        differences: &[],
    },
    Case {
        name: "a target that the portal does not have",
        steps: &[
            ISCSIADM,
            params(&[SCRIPT, ("params", "iqn=iqn.2026-01.example:$N-other,portal=192.0.2.1")]),
            Step::add(I, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a portal that does not answer",
        steps: &[
            ISCSIADM,
            Step::Sh("touch $H/iscsiadm.d/unreachable"),
            DEVICE,
            Step::add(I, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a target that lets nobody log in",
        steps: &[
            ISCSIADM,
            Step::Sh("touch $H/iscsiadm.d/refused"),
            DEVICE,
            Step::add(I, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a target with a session already",
        steps: &[
            ISCSIADM,
            Step::Sh("echo \"tcp: [1] 192.0.2.1:3260,1 iqn.2026-01.example:$N (non-flash)\" >$H/iscsiadm.d/sessions"),
            DEVICE,
            Step::add(I, 1),
        ],
        differences: &[Difference {
            original: &["node vbd/3/51712/hotplug-status = error"],
            ours: &["node vbd/3/51712/hotplug-status = busy"],
            because: "what somebody else uses is `busy`",
        }],
    },
    Case {
        name: "a session with a target whose name goes on",
        steps: &[
            ISCSIADM,
            Step::Sh("echo \"tcp: [1] 192.0.2.1:3260,1 iqn.2026-01.example:$N-2 (non-flash)\" >$H/iscsiadm.d/sessions"),
            DEVICE,
            Step::add(I, 1),
        ],
        differences: &[Difference {
            original: &[
                "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error",
                "run 1, add: exit 1",
            ],
            ours: &[
                "node vbd/3/51712/hotplug-status = connected",
                "node vbd/3/51712/physical-device = *",
                "node vbd/3/51712/physical-device-path = *",
                "* connected when it had: *",
                "iscsiadm: -m discovery *",
                "iscsiadm: * --login",
                "loop on *",
                "run 1, add: exit 0",
            ],
            because: "a fault: the original takes a target for another one whose name begins with its own",
        }],
    },
    Case {
        name: "no iscsiadm",
        steps: &[DEVICE, Step::add(I, 1)],
        differences: &[],
    },
    Case {
        name: "a target, added twice",
        steps: &[ISCSIADM, DEVICE, Step::add(I, 0), Step::add(I, 1)],
        differences: &[Difference {
            original: &[
                "iscsiadm: -m session x 2",
                "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error",
                "run 2, add: exit 1",
            ],
            ours: &[
                "iscsiadm: -m session",
                "node vbd/3/51712/hotplug-status = connected",
                "run 2, add: exit 0",
            ],
            because: "a fault: to the original its own session is another's, and a disk that works is reported as broken",
        }],
    },
    Case {
        name: "a target, added and removed",
        steps: &[ISCSIADM, DEVICE, Step::add(I, 0), Step::Close(I), Step::remove(I, 0)],
        differences: &[DISCONNECTED],
    },
    Case {
        name: "a target that cannot be logged out of",
        steps: &[
            ISCSIADM,
            DEVICE,
            Step::add(I, 0),
            Step::Sh("touch $H/iscsiadm.d/stuck"),
            Step::Close(I),
            Step::remove(I, 1),
        ],
        differences: &[Difference {
            original: &[
                "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error",
                "iscsiadm: * --logout",
            ],
            ours: &["node vbd/3/51712/hotplug-status = connected", "iscsiadm: * --logout*"],
            because: "what could not be taken down stays, and is tried again: who called is told, and the store when it is done",
        }],
    },
    Case {
        name: "a target, removed after its params were",
        steps: &[
            ISCSIADM,
            DEVICE,
            Step::add(I, 0),
            Step::Write(I, "params", ABSENT),
            Step::Close(I),
            Step::remove(I, 1),
        ],
        differences: &[Difference {
            original: &[
                "loop on *",
                "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error",
                "run 2, remove: exit 1",
            ],
            ours: &[
                "node vbd/3/51712/hotplug-status = disconnected",
                "iscsiadm: * --logout",
                "run 2, remove: exit 0",
            ],
            because: "a fault: the original needs the node to take down what it has set up, and leaks its session",
        }],
    },
];
