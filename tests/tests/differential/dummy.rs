//! `block-dummy`: what a test's disks go to, by their script or by their type.

use xenplug_tests::{
    differential::{ABSENT, Case, Difference, Step},
    harness::Device,
};

use super::DISCONNECTED;

const A: Device = Device::disk(3, 0);
const B: Device = Device::disk(4, 0);

const IMAGE: Step = Step::Sh("truncate -s 4M $D/a.img");
const DUMMY: (&str, &str) = ("script", "/etc/xen/scripts/block-dummy");

/// The kernel takes our loop devices back with their last user.
const AUTOCLEAR: Difference = Difference {
    original: &[],
    ours: &["loop on *: autoclear*"],
    because: "our loop devices are cleared by the kernel with their last user: nothing leaks, whatever becomes of the daemon",
};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a dummy",
        steps: &[
            IMAGE,
            Step::Device(A, &[DUMMY, ("params", "dummy:$D/a.img")]),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "a dummy, read-only",
        steps: &[
            IMAGE,
            Step::Device(A, &[DUMMY, ("params", "dummy:$D/a.img"), ("mode", "r")]),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "a dummy, by type",
        steps: &[
            IMAGE,
            Step::Device(A, &[("params", "dummy:$D/a.img"), ("type", "dummy")]),
            Step::add(A, 0),
        ],
        differences: &[
            AUTOCLEAR,
            Difference {
                original: &["* connected when it had: "],
                ours: &[],
                because: "the original of `block` reports the disk as connected before it runs that of its type",
            },
        ],
    },
    Case {
        name: "a dummy that is missing",
        steps: &[Step::Device(A, &[DUMMY, ("params", "dummy:$D/a.img")]), Step::add(A, 1)],
        differences: &[],
    },
    Case {
        name: "another word before the colon",
        steps: &[
            IMAGE,
            Step::Device(A, &[DUMMY, ("params", "file:$D/a.img")]),
            Step::add(A, 1),
        ],
        differences: &[],
    },
    Case {
        name: "no colon",
        steps: &[IMAGE, Step::Device(A, &[DUMMY, ("params", "dummy")]), Step::add(A, 1)],
        differences: &[],
    },
    Case {
        name: "no params of a dummy",
        steps: &[IMAGE, Step::Device(A, &[DUMMY, ("params", ABSENT)]), Step::add(A, 1)],
        differences: &[],
    },
    Case {
        name: "a dummy whose name has a space",
        steps: &[
            Step::Sh("truncate -s 4M \"$D/a b.img\""),
            Step::Device(A, &[DUMMY, ("params", "dummy:$D/a b.img")]),
            Step::add(A, 1),
        ],
        differences: &[
            AUTOCLEAR,
            Difference {
                original: &[
                    "node vbd/3/51712/hotplug-error = <text>",
                    "node vbd/3/51712/hotplug-status = error",
                    "run 1, add: exit 1",
                ],
                ours: &[
                    "loop on $D/a b.img",
                    "node vbd/3/51712/hotplug-status = connected",
                    "node vbd/3/51712/node = *",
                    "node vbd/3/51712/physical-device = *",
                    "node vbd/3/51712/physical-device-path = *",
                    "run 1, add: exit 0",
                    "* connected when it had: node physical-device physical-device-path",
                ],
                because: "a fault: the original splits the path at spaces",
            },
        ],
    },
    Case {
        name: "a dummy that another guest writes",
        steps: &[
            IMAGE,
            Step::Device(A, &[DUMMY, ("params", "dummy:$D/a.img")]),
            Step::Device(B, &[DUMMY, ("params", "dummy:$D/a.img")]),
            Step::add(A, 0),
            Step::add(B, 0),
        ],
        differences: &[
            AUTOCLEAR,
            Difference {
                original: &[
                    "loop on $D/a.img x 2",
                    "node vbd/4/51712/hotplug-status = connected",
                    "node vbd/4/51712/node = *",
                    "node vbd/4/51712/physical-device = *",
                    "node vbd/4/51712/physical-device-path = *",
                    "run 2, add: exit 0",
                    "vbd/4/51712 connected when it had: *",
                ],
                ours: &[
                    "loop on $D/a.img",
                    "node vbd/4/51712/hotplug-error = <text>",
                    "node vbd/4/51712/hotplug-status = busy",
                    "run 2, add: exit 1",
                ],
                because: "the original does not look who else uses the file: two guests write it",
            },
        ],
    },
    Case {
        name: "a dummy, added twice",
        steps: &[
            IMAGE,
            Step::Device(A, &[DUMMY, ("params", "dummy:$D/a.img")]),
            Step::add(A, 0),
            Step::add(A, 0),
        ],
        differences: &[
            AUTOCLEAR,
            Difference {
                original: &["loop on $D/a.img x 2", "* connected when it had: * x 2"],
                ours: &[
                    "loop on $D/a.img",
                    "* connected when it had: node physical-device physical-device-path",
                ],
                because: "a fault: the original attaches a second loop device, and leaks the first",
            },
        ],
    },
    Case {
        name: "a dummy, added and removed",
        steps: &[
            IMAGE,
            Step::Device(A, &[DUMMY, ("params", "dummy:$D/a.img")]),
            Step::add(A, 0),
            Step::Close(A),
            Step::remove(A, 0),
        ],
        differences: &[DISCONNECTED],
    },
    Case {
        name: "a dummy, removed after its image was deleted",
        steps: &[
            IMAGE,
            Step::Device(A, &[DUMMY, ("params", "dummy:$D/a.img")]),
            Step::add(A, 0),
            Step::Sh("rm $D/a.img"),
            Step::Close(A),
            Step::remove(A, 0),
        ],
        differences: &[DISCONNECTED],
    },
];
