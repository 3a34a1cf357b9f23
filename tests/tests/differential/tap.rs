//! `block-tap`: disks that tapdisk serves. [`CASES`] are compared with the script of Xen 4.19 and 4.20, [`OLD_CASES`] with
//! that of 4.17 and 4.18, which needs a kernel's module that no kernel of today has.

use xenplug_tests::{
    differential::{ABSENT, Case, Difference, Step},
    harness::Device,
};

use super::DISCONNECTED;

/// Guest 3's disk, guest 4's, and that of a stub domain.
const T: Device = Device::tap(3, 0);
const U: Device = Device::tap(4, 0);
const STUB: Device = Device::tap(5, 0);
/// The same for blkback, on the kernel's block device.
const K: Device = Device::disk(3, 0);
const L: Device = Device::disk(4, 0);

const TAP_CTL: Step = Step::Helper("tap-ctl");
const IMAGE: Step = Step::Sh("truncate -s 4M $D/a.img");
const MODULE: Step = Step::Sh("touch $H/tap-ctl.d/module");
const SCRIPT: (&str, &str) = ("script", "/etc/xen/scripts/block-tap");
const PARAMS: (&str, &str) = ("params", "aio:$D/a.img");

/// One list tells us both.
const LOOKED: Difference = Difference {
    original: &["tap-ctl: list -t *"],
    ours: &["tap-ctl: list*"],
    because: "one list tells who has the image open, and which number is next",
};

const STEP_BY_STEP: Difference = Difference {
    original: &["tap-ctl: destroy *"],
    ours: &["tap-ctl: close *", "tap-ctl: detach *", "tap-ctl: free *"],
    because: "what `destroy` does at once is undone step by step as it was done, each step by a record in the journal",
};

const ONCE: Difference = Difference {
    original: &["* connected when it had: physical-device-path x 2"],
    ours: &["* connected when it had: physical-device-path"],
    because: "the second time there is nothing to do",
};

const READ_ONLY: Difference = Difference {
    original: &["tap-ctl: open -p <tapdisk> -m 0 -a aio:$D/a.img"],
    ours: &["tap-ctl: open -p <tapdisk> -m 0 -a aio:$D/a.img -R"],
    because: "what a guest only reads is opened read-only: the original leaves that to the backend",
};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "an image that tapdisk serves",
        steps: &[TAP_CTL, IMAGE, Step::Device(T, &[]), Step::add(T, 0)],
        differences: &[LOOKED],
    },
    Case {
        name: "an image of another format",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[("params", "vhd:$D/a.img")]),
            Step::add(T, 0),
        ],
        differences: &[LOOKED],
    },
    Case {
        name: "an image that is only read",
        steps: &[TAP_CTL, IMAGE, Step::Device(T, &[("mode", "r")]), Step::add(T, 0)],
        differences: &[LOOKED, READ_ONLY],
    },
    Case {
        name: "an image whose name has a space",
        steps: &[
            TAP_CTL,
            Step::Sh("truncate -s 4M \"$D/a b.img\""),
            Step::Device(T, &[("params", "aio:$D/a b.img")]),
            Step::add(T, 0),
            Step::add(T, 0),
        ],
        differences: &[
            LOOKED,
            Difference {
                original: &[
                    "node vbd3/3/51712/minor = 1",
                    "node vbd3/3/51712/physical-device-path = */nbd<tapdisk>.1",
                    "tap-ctl: allocate x 2",
                    "tap-ctl: attach -p <tapdisk> -m 1",
                    "tap-ctl: open -p <tapdisk> -m 1 *",
                    "tap-ctl: spawn x 2",
                    "* connected when it had: * x 2",
                ],
                ours: &[
                    "node vbd3/3/51712/minor = 0",
                    "node vbd3/3/51712/physical-device-path = */nbd<tapdisk>.0",
                    "tap-ctl: allocate",
                    "tap-ctl: spawn",
                    "* connected when it had: physical-device-path",
                ],
                because: "a fault: the original looks for the name up to the space, and starts a second tapdisk on the image",
            },
        ],
    },
    Case {
        name: "a block device that tapdisk serves",
        steps: &[
            TAP_CTL,
            Step::Sh(
                "truncate -s 4M $D/disk.img; loop=$(losetup -f --show $D/disk.img); mknod $D/dev b 7 ${loop#/dev/loop}",
            ),
            Step::Device(T, &[("params", "aio:$D/dev")]),
            Step::add(T, 0),
        ],
        differences: &[LOOKED],
    },
    Case {
        name: "an image that is missing",
        steps: &[TAP_CTL, Step::Device(T, &[]), Step::add(T, 1)],
        differences: &[Difference {
            original: &[
                "tap-ctl: allocate*",
                "tap-ctl: attach *",
                "tap-ctl: open *",
                "tap-ctl: spawn*",
                "tap-ctl: list *",
                "tap-ctl: detach *",
                "tap-ctl: free *",
            ],
            ours: &[],
            because: "the image is opened before a tapdisk is started for it",
        }],
    },
    Case {
        name: "an image that is not granted to tapdisk",
        steps: &[
            TAP_CTL,
            Step::Sh("truncate -s 4M $O/a.img"),
            Step::Device(T, &[("params", "aio:$O/a.img")]),
            Step::add(T, 0),
        ],
        differences: &[Difference {
            original: &[
                "node vbd3/3/51712/hotplug-status = connected",
                "node vbd3/3/51712/minor = 0",
                "node vbd3/3/51712/physical-device-path = *",
                "node vbd3/3/51712/pid = <tapdisk>",
                "run 1, add: exit 0",
                "tap-ctl: list *",
                "* connected when it had: *",
                "tap-ctl: allocate*",
                "tap-ctl: attach *",
                "tap-ctl: open *",
                "tap-ctl: spawn*",
            ],
            ours: &[
                "node vbd3/3/51712/hotplug-error = <text>",
                "node vbd3/3/51712/hotplug-status = error",
                "run 1, add: exit 1",
            ],
            because: "what the operator did not grant is refused",
        }],
    },
    Case {
        name: "an image that tapdisk refuses",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Sh("touch $H/tap-ctl.d/refused"),
            Step::Device(T, &[]),
            Step::add(T, 1),
        ],
        differences: &[LOOKED],
    },
    Case {
        name: "no tap-ctl",
        steps: &[IMAGE, Step::Device(T, &[]), Step::add(T, 1)],
        differences: &[],
    },
    Case {
        name: "no params of a tapdisk",
        steps: &[TAP_CTL, IMAGE, Step::Device(T, &[("params", ABSENT)]), Step::add(T, 1)],
        differences: &[],
    },
    Case {
        name: "params without a format",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[("params", "$D/a.img")]),
            Step::add(T, 1),
        ],
        differences: &[],
    },
    Case {
        name: "no mode of a tapdisk",
        steps: &[TAP_CTL, IMAGE, Step::Device(T, &[("mode", ABSENT)]), Step::add(T, 1)],
        differences: &[],
    },
    Case {
        name: "a tapdisk, added twice",
        steps: &[TAP_CTL, IMAGE, Step::Device(T, &[]), Step::add(T, 0), Step::add(T, 0)],
        differences: &[LOOKED, ONCE],
    },
    Case {
        name: "a tapdisk, added and removed",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::add(T, 0),
            Step::Close(T),
            Step::remove(T, 0),
        ],
        differences: &[LOOKED, STEP_BY_STEP, DISCONNECTED],
    },
    Case {
        name: "a tapdisk, removed twice",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::add(T, 0),
            Step::Close(T),
            Step::remove(T, 0),
            Step::remove(T, 1),
        ],
        differences: &[
            LOOKED,
            STEP_BY_STEP,
            Difference {
                original: &[
                    "node vbd3/3/51712/hotplug-error = <text>",
                    "node vbd3/3/51712/hotplug-status = error",
                    "run 3, remove: exit 1",
                ],
                ours: &[
                    "node vbd3/3/51712/hotplug-status = disconnected",
                    "run 3, remove: exit 0",
                ],
                because: "a removal that finds nothing to take down is no error",
            },
        ],
    },
    Case {
        name: "a tapdisk, removed without having been added",
        steps: &[TAP_CTL, IMAGE, Step::Device(T, &[]), Step::remove(T, 1)],
        differences: &[Difference {
            original: &[
                "node vbd3/3/51712/hotplug-error = <text>",
                "node vbd3/3/51712/hotplug-status = error",
                "run 1, remove: exit 1",
            ],
            ours: &["run 1, remove: exit 0"],
            because: "a removal that finds nothing to take down is no error",
        }],
    },
    Case {
        name: "a tapdisk, removed after it was killed",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::add(T, 0),
            Step::Sh("kill -9 $(cat $H/tap-ctl.d/started)"),
            Step::Close(T),
            Step::remove(T, 1),
        ],
        differences: &[
            LOOKED,
            STEP_BY_STEP,
            Difference {
                original: &[
                    "node vbd3/3/51712/hotplug-error = <text>",
                    "node vbd3/3/51712/hotplug-status = error",
                    "run 2, remove: exit 1",
                ],
                ours: &[
                    "node vbd3/3/51712/hotplug-status = disconnected",
                    "run 2, remove: exit 0",
                ],
                because: "a fault: the original gives up where there is no tapdisk any more, and leaks its number",
            },
        ],
    },
    Case {
        name: "a tapdisk, removed after its image was deleted",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::add(T, 0),
            Step::Sh("rm $D/a.img"),
            Step::Close(T),
            Step::remove(T, 0),
        ],
        differences: &[LOOKED, STEP_BY_STEP, DISCONNECTED],
    },
    Case {
        name: "a tapdisk, removed after its params were",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::add(T, 0),
            Step::Write(T, "params", ABSENT),
            Step::Close(T),
            Step::remove(T, 1),
        ],
        differences: &[
            LOOKED,
            Difference {
                original: &[
                    "node vbd3/3/51712/hotplug-error = <text>",
                    "node vbd3/3/51712/hotplug-status = error",
                    "run 2, remove: exit 1",
                ],
                ours: &[
                    "node vbd3/3/51712/hotplug-status = disconnected",
                    "run 2, remove: exit 0",
                    "tap-ctl: close *",
                    "tap-ctl: detach *",
                    "tap-ctl: free *",
                ],
                because: "a fault: the original needs the node to take down what it has set up, and leaks its tapdisk",
            },
        ],
    },
    Case {
        name: "a tapdisk, removed after its directory was",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::add(T, 0),
            Step::Forget(T),
            Step::remove(T, 1),
        ],
        differences: &[
            LOOKED,
            Difference {
                original: &[
                    "node vbd3 = ",
                    "node vbd3/3 = ",
                    "node vbd3/3/51712 = ",
                    "node vbd3/3/51712/hotplug-error = <text>",
                    "node vbd3/3/51712/hotplug-status = error",
                    "run 2, remove: exit 1",
                ],
                ours: &[
                    "run 2, remove: exit 0",
                    "tap-ctl: close *",
                    "tap-ctl: detach *",
                    "tap-ctl: free *",
                ],
                because: "a fault: the original leaks its tapdisk, and makes the directory again",
            },
        ],
    },
    Case {
        name: "a tapdisk that is busy, removed",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::add(T, 0),
            Step::Sh("touch $H/tap-ctl.d/stuck"),
            Step::Close(T),
            Step::remove(T, 1),
        ],
        differences: &[
            LOOKED,
            STEP_BY_STEP,
            Difference {
                original: &[
                    "node vbd3/3/51712/hotplug-error = <text>",
                    "node vbd3/3/51712/hotplug-status = error",
                ],
                ours: &["node vbd3/3/51712/hotplug-status = connected"],
                because: "what could not be taken down stays, and is tried again: who called is told, and the store when it is done",
            },
        ],
    },
    Case {
        name: "an image that another guest's tapdisk writes",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::Device(U, &[]),
            Step::add(T, 0),
            Step::add(U, 127),
        ],
        differences: &[
            LOOKED,
            Difference {
                original: &["run 2, add: exit 127"],
                ours: &[
                    "node vbd3/4/51712/hotplug-error = <text>",
                    "node vbd3/4/51712/hotplug-status = busy",
                    "run 2, add: exit 1",
                ],
                because: "a fault: the original calls a function of another script's to say so, and says nothing",
            },
        ],
    },
    Case {
        name: "an image that two guests read through tapdisk",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[("mode", "r")]),
            Step::Device(U, &[("mode", "r")]),
            Step::add(T, 0),
            Step::add(U, 0),
        ],
        differences: &[LOOKED, READ_ONLY],
    },
    Case {
        name: "an image that two guests share through tapdisk",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[("mode", "w!")]),
            Step::Device(U, &[("mode", "w!")]),
            Step::add(T, 0),
            Step::add(U, 0),
        ],
        differences: &[LOOKED],
    },
    Case {
        name: "a guest and its stub domain have one tapdisk",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::Device(STUB, &[]),
            Step::WriteAt("/local/domain/5/target", "3"),
            Step::add(STUB, 0),
            Step::add(T, 0),
        ],
        differences: &[LOOKED],
    },
    Case {
        name: "the guest's tapdisk stays when its stub domain goes",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::Device(STUB, &[]),
            Step::WriteAt("/local/domain/5/target", "3"),
            Step::add(STUB, 0),
            Step::add(T, 0),
            Step::Close(STUB),
            Step::remove(STUB, 0),
            Step::Forget(STUB),
        ],
        differences: &[LOOKED],
    },
    Case {
        name: "the tapdisk goes with the last of a guest and its stub domain",
        steps: &[
            TAP_CTL,
            IMAGE,
            Step::Device(T, &[]),
            Step::Device(STUB, &[]),
            Step::WriteAt("/local/domain/5/target", "3"),
            Step::add(STUB, 0),
            Step::add(T, 0),
            Step::Close(STUB),
            Step::remove(STUB, 0),
            Step::Forget(STUB),
            Step::Close(T),
            Step::remove(T, 0),
        ],
        differences: &[LOOKED, STEP_BY_STEP, DISCONNECTED],
    },
    Case {
        name: "a tapdisk on the kernel's module",
        steps: &[
            TAP_CTL,
            MODULE,
            IMAGE,
            Step::Device(K, &[SCRIPT, PARAMS]),
            Step::add(K, 0),
        ],
        differences: &[LOOKED],
    },
    Case {
        name: "a tapdisk on the kernel's module, added and removed",
        steps: &[
            TAP_CTL,
            MODULE,
            IMAGE,
            Step::Device(K, &[SCRIPT, PARAMS]),
            Step::add(K, 0),
            Step::Close(K),
            Step::remove(K, 0),
        ],
        differences: &[LOOKED, STEP_BY_STEP, DISCONNECTED],
    },
    Case {
        name: "a tapdisk for blkback without the kernel's module",
        steps: &[TAP_CTL, IMAGE, Step::Device(K, &[SCRIPT, PARAMS]), Step::add(K, 1)],
        differences: &[
            LOOKED,
            Difference {
                original: &["node vbd/3/51712/minor = 0", "node vbd/3/51712/pid = <tapdisk>"],
                ours: &["tap-ctl: close *", "tap-ctl: detach *", "tap-ctl: free *"],
                because: "a fault: the original leaks the tapdisk that it has no device for",
            },
        ],
    },
];

/// The script of 4.17 and 4.18 does without the numbers.
const NEW_WAY: Difference = Difference {
    original: &["modprobe: blktap*", "tap-ctl: check*", "tap-ctl: create *"],
    ours: &[
        "node */minor = <minor>",
        "node */pid = <tapdisk>",
        "tap-ctl: allocate",
        "tap-ctl: attach *",
        "tap-ctl: list",
        "tap-ctl: open *",
        "tap-ctl: spawn",
    ],
    because: "ours goes the way of the newer script, loads no module of the kernel's, and publishes what that publishes",
};

pub(crate) const OLD_CASES: &[Case] = &[
    Case {
        name: "an image",
        steps: &[
            TAP_CTL,
            MODULE,
            IMAGE,
            Step::Device(K, &[SCRIPT, PARAMS]),
            Step::add(K, 0),
        ],
        differences: &[NEW_WAY],
    },
    Case {
        name: "an image, added twice",
        steps: &[
            TAP_CTL,
            MODULE,
            IMAGE,
            Step::Device(K, &[SCRIPT, PARAMS]),
            Step::add(K, 0),
            Step::add(K, 0),
        ],
        differences: &[
            NEW_WAY,
            Difference {
                original: &["loop on $D/a.img x 2", "* connected when it had: * x 2"],
                ours: &[
                    "loop on $D/a.img",
                    "* connected when it had: physical-device physical-device-path",
                ],
                because: "a fault: the original starts a second tapdisk, and leaks the first",
            },
        ],
    },
    Case {
        name: "an image, added and removed",
        steps: &[
            TAP_CTL,
            MODULE,
            IMAGE,
            Step::Device(K, &[SCRIPT, PARAMS]),
            Step::add(K, 0),
            Step::Close(K),
            Step::remove(K, 0),
        ],
        differences: &[
            NEW_WAY,
            STEP_BY_STEP,
            DISCONNECTED,
            Difference {
                original: &["tap-ctl: list -t *"],
                ours: &[],
                because: "who serves the image is in the journal",
            },
        ],
    },
    Case {
        name: "an image, removed without having been added",
        steps: &[
            TAP_CTL,
            MODULE,
            IMAGE,
            Step::Device(K, &[SCRIPT, PARAMS]),
            Step::remove(K, 1),
        ],
        differences: &[Difference {
            original: &[
                "modprobe: blktap",
                "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error",
                "run 1, remove: exit 1",
                "tap-ctl: check",
                "tap-ctl: list -t *",
            ],
            ours: &["run 1, remove: exit 0"],
            because: "a removal that finds nothing to take down is no error",
        }],
    },
    Case {
        name: "an image that is missing",
        steps: &[TAP_CTL, MODULE, Step::Device(K, &[SCRIPT, PARAMS]), Step::add(K, 2)],
        differences: &[Difference {
            original: &[
                "modprobe: blktap",
                "run 1, add: exit 2",
                "tap-ctl: check",
                "tap-ctl: create *",
            ],
            ours: &[
                "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error",
                "run 1, add: exit 1",
            ],
            because: "the original fails without a word in the store",
        }],
    },
    Case {
        name: "an image that another guest writes",
        steps: &[
            TAP_CTL,
            MODULE,
            IMAGE,
            Step::Device(K, &[SCRIPT, PARAMS]),
            Step::Device(L, &[SCRIPT, PARAMS]),
            Step::add(K, 0),
            Step::add(L, 0),
        ],
        differences: &[
            NEW_WAY,
            Difference {
                original: &[
                    "loop on $D/a.img x 2",
                    "node vbd/4/51712/hotplug-status = connected",
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
                because: "the original does not look who else uses the image: two guests write it",
            },
        ],
    },
];
