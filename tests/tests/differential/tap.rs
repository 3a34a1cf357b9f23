//! `block-tap`: disks that tapdisk serves. [`CASES`] are compared with the script of Xen 4.19 and 4.20, [`OLD_CASES`]
//! with that of 4.17 and 4.18, which needs a module that current kernels lack.

use xenplug_tests::{
    cases,
    differential::{
        ABSENT, Case, Difference, Step,
        table::{add, close, device, differs, forget, remove, sh, write, write_at},
    },
    harness::Device,
};

use super::DISCONNECTED;

/// Disks of guest 3, of guest 4, and of a stub domain.
const T: Device = Device::tap(3, 0);
const U: Device = Device::tap(4, 0);
const STUB: Device = Device::tap(5, 0);
/// Disk for blkback, on the kernel's block device.
const K: Device = Device::disk(3, 0);
const L: Device = Device::disk(4, 0);

const TAP_CTL: Step = Step::Helper("tap-ctl");
const IMAGE: Step = Step::Sh("truncate -s 4M $D/a.img");
const MODULE: Step = Step::Sh("touch $H/tap-ctl.d/module");
const SCRIPT: (&str, &str) = ("script", "/etc/xen/scripts/block-tap");
const PARAMS: (&str, &str) = ("params", "aio:$D/a.img");

/// Difference: the daemon lists the tapdisks once for both purposes.
const LISTED: Difference = Difference {
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

pub(crate) const CASES: &[Case] = cases! {
    "an image that tapdisk serves": [TAP_CTL, IMAGE, device(T, &[]), add(T, 0)] => [LISTED];
    "an image of another format": [TAP_CTL, IMAGE, device(T, &[("params", "vhd:$D/a.img")]), add(T, 0)] => [LISTED];
    "an image that is only read": [TAP_CTL, IMAGE, device(T, &[("mode", "r")]), add(T, 0)] => [LISTED, READ_ONLY];
    "an image whose name has a space": [
        TAP_CTL, sh("truncate -s 4M \"$D/a b.img\""), device(T, &[("params", "aio:$D/a b.img")]), add(T, 0), add(T, 0)
    ] => [
        LISTED,
        differs(
            &[
                "node vbd3/3/51712/minor = 1", "node vbd3/3/51712/physical-device-path = */nbd<tapdisk>.1",
                "tap-ctl: allocate x 2", "tap-ctl: attach -p <tapdisk> -m 1", "tap-ctl: open -p <tapdisk> -m 1 *",
                "tap-ctl: spawn x 2", "* connected when it had: * x 2"
            ],
            &[
                "node vbd3/3/51712/minor = 0", "node vbd3/3/51712/physical-device-path = */nbd<tapdisk>.0",
                "tap-ctl: allocate", "tap-ctl: spawn", "* connected when it had: physical-device-path"
            ],
            "a fault: the original looks for the name up to the space, and starts a second tapdisk on the image",
        ),
    ];
    "a block device that tapdisk serves": [
        TAP_CTL,
        sh("truncate -s 4M $D/disk.img; loop=$(losetup -f --show $D/disk.img); mknod $D/dev b 7 ${loop#/dev/loop}"),
        device(T, &[("params", "aio:$D/dev")]), add(T, 0)
    ] => [LISTED];
    "an image that is missing": [TAP_CTL, device(T, &[]), add(T, 1)] => [
        differs(
            &[
                "tap-ctl: allocate*", "tap-ctl: attach *", "tap-ctl: open *", "tap-ctl: spawn*", "tap-ctl: list *",
                "tap-ctl: detach *", "tap-ctl: free *"
            ],
            &[],
            "the image is opened before a tapdisk is started for it",
        ),
    ];
    "an image that is not granted to tapdisk": [
        TAP_CTL, sh("truncate -s 4M $O/a.img"), device(T, &[("params", "aio:$O/a.img")]), add(T, 0)
    ] => [
        differs(
            &[
                "node vbd3/3/51712/hotplug-status = connected", "node vbd3/3/51712/minor = 0",
                "node vbd3/3/51712/physical-device-path = *", "node vbd3/3/51712/pid = <tapdisk>", "run 1, add: exit 0",
                "tap-ctl: list *", "* connected when it had: *", "tap-ctl: allocate*", "tap-ctl: attach *",
                "tap-ctl: open *", "tap-ctl: spawn*"
            ],
            &[
                "node vbd3/3/51712/hotplug-error = <text>", "node vbd3/3/51712/hotplug-status = error",
                "run 1, add: exit 1"
            ],
            "what the operator did not grant is refused",
        ),
    ];
    "an image that tapdisk refuses": [TAP_CTL, IMAGE, sh("touch $H/tap-ctl.d/refused"), device(T, &[]), add(T, 1)] => [
        LISTED
    ];
    "no tap-ctl": [IMAGE, device(T, &[]), add(T, 1)];
    "no params of a tapdisk": [TAP_CTL, IMAGE, device(T, &[("params", ABSENT)]), add(T, 1)];
    "params without a format": [TAP_CTL, IMAGE, device(T, &[("params", "$D/a.img")]), add(T, 1)];
    "no mode of a tapdisk": [TAP_CTL, IMAGE, device(T, &[("mode", ABSENT)]), add(T, 1)];
    "a tapdisk, added twice": [TAP_CTL, IMAGE, device(T, &[]), add(T, 0), add(T, 0)] => [LISTED, ONCE];
    "a tapdisk, added and removed": [TAP_CTL, IMAGE, device(T, &[]), add(T, 0), close(T), remove(T, 0)] => [
        LISTED, STEP_BY_STEP, DISCONNECTED
    ];
    "a tapdisk, removed twice": [TAP_CTL, IMAGE, device(T, &[]), add(T, 0), close(T), remove(T, 0), remove(T, 1)] => [
        LISTED,
        STEP_BY_STEP,
        differs(
            &[
                "node vbd3/3/51712/hotplug-error = <text>", "node vbd3/3/51712/hotplug-status = error",
                "run 3, remove: exit 1"
            ],
            &["node vbd3/3/51712/hotplug-status = disconnected", "run 3, remove: exit 0"],
            "a removal that finds nothing to take down is no error",
        ),
    ];
    "a tapdisk, removed without having been added": [TAP_CTL, IMAGE, device(T, &[]), remove(T, 1)] => [
        differs(
            &[
                "node vbd3/3/51712/hotplug-error = <text>", "node vbd3/3/51712/hotplug-status = error",
                "run 1, remove: exit 1"
            ],
            &["run 1, remove: exit 0"],
            "a removal that finds nothing to take down is no error",
        ),
    ];
    "a tapdisk, removed after it was killed": [
        TAP_CTL, IMAGE, device(T, &[]), add(T, 0), sh("kill -9 $(cat $H/tap-ctl.d/started)"), close(T), remove(T, 1)
    ] => [
        LISTED,
        STEP_BY_STEP,
        differs(
            &[
                "node vbd3/3/51712/hotplug-error = <text>", "node vbd3/3/51712/hotplug-status = error",
                "run 2, remove: exit 1"
            ],
            &["node vbd3/3/51712/hotplug-status = disconnected", "run 2, remove: exit 0"],
            "a fault: the original gives up where there is no tapdisk any more, and leaks its number",
        ),
    ];
    "a tapdisk, removed after its image was deleted": [
        TAP_CTL, IMAGE, device(T, &[]), add(T, 0), sh("rm $D/a.img"), close(T), remove(T, 0)
    ] => [LISTED, STEP_BY_STEP, DISCONNECTED];
    "a tapdisk, removed after its params were": [
        TAP_CTL, IMAGE, device(T, &[]), add(T, 0), write(T, "params", ABSENT), close(T), remove(T, 1)
    ] => [
        LISTED,
        differs(
            &[
                "node vbd3/3/51712/hotplug-error = <text>", "node vbd3/3/51712/hotplug-status = error",
                "run 2, remove: exit 1"
            ],
            &[
                "node vbd3/3/51712/hotplug-status = disconnected", "run 2, remove: exit 0", "tap-ctl: close *",
                "tap-ctl: detach *", "tap-ctl: free *"
            ],
            "a fault: the original needs the node to take down what it has set up, and leaks its tapdisk",
        ),
    ];
    "a tapdisk, removed after its directory was": [
        TAP_CTL, IMAGE, device(T, &[]), add(T, 0), forget(T), remove(T, 1)
    ] => [
        LISTED,
        differs(
            &[
                "node vbd3 = ", "node vbd3/3 = ", "node vbd3/3/51712 = ", "node vbd3/3/51712/hotplug-error = <text>",
                "node vbd3/3/51712/hotplug-status = error", "run 2, remove: exit 1"
            ],
            &["run 2, remove: exit 0", "tap-ctl: close *", "tap-ctl: detach *", "tap-ctl: free *"],
            "a fault: the original leaks its tapdisk, and makes the directory again",
        ),
    ];
    "a tapdisk that is busy, removed": [
        TAP_CTL, IMAGE, device(T, &[]), add(T, 0), sh("touch $H/tap-ctl.d/stuck"), close(T), remove(T, 1)
    ] => [
        LISTED,
        STEP_BY_STEP,
        differs(
            &["node vbd3/3/51712/hotplug-error = <text>", "node vbd3/3/51712/hotplug-status = error"],
            &["node vbd3/3/51712/hotplug-status = connected"],
            "what could not be taken down stays, and is tried again: who called is told, and the store when it is done",
        ),
    ];
    "an image that another guest's tapdisk writes": [
        TAP_CTL, IMAGE, device(T, &[]), device(U, &[]), add(T, 0), add(U, 127)
    ] => [
        LISTED,
        differs(
            &["run 2, add: exit 127"],
            &[
                "node vbd3/4/51712/hotplug-error = <text>", "node vbd3/4/51712/hotplug-status = busy",
                "run 2, add: exit 1"
            ],
            "a fault: the original calls a function of another script's to say so, and says nothing",
        ),
    ];
    "an image that two guests read through tapdisk": [
        TAP_CTL, IMAGE, device(T, &[("mode", "r")]), device(U, &[("mode", "r")]), add(T, 0), add(U, 0)
    ] => [LISTED, READ_ONLY];
    "an image that two guests share through tapdisk": [
        TAP_CTL, IMAGE, device(T, &[("mode", "w!")]), device(U, &[("mode", "w!")]), add(T, 0), add(U, 0)
    ] => [LISTED];
    "a guest and its stub domain have one tapdisk": [
        TAP_CTL, IMAGE, device(T, &[]), device(STUB, &[]), write_at("/local/domain/5/target", "3"), add(STUB, 0),
        add(T, 0)
    ] => [LISTED];
    "the guest's tapdisk stays when its stub domain goes": [
        TAP_CTL, IMAGE, device(T, &[]), device(STUB, &[]), write_at("/local/domain/5/target", "3"), add(STUB, 0),
        add(T, 0), close(STUB), remove(STUB, 0), forget(STUB)
    ] => [LISTED];
    "the tapdisk goes with the last of a guest and its stub domain": [
        TAP_CTL, IMAGE, device(T, &[]), device(STUB, &[]), write_at("/local/domain/5/target", "3"), add(STUB, 0),
        add(T, 0), close(STUB), remove(STUB, 0), forget(STUB), close(T), remove(T, 0)
    ] => [LISTED, STEP_BY_STEP, DISCONNECTED];
    "a tapdisk on the kernel's module": [TAP_CTL, MODULE, IMAGE, device(K, &[SCRIPT, PARAMS]), add(K, 0)] => [LISTED];
    "a tapdisk on the kernel's module, added and removed": [
        TAP_CTL, MODULE, IMAGE, device(K, &[SCRIPT, PARAMS]), add(K, 0), close(K), remove(K, 0)
    ] => [LISTED, STEP_BY_STEP, DISCONNECTED];
    "a tapdisk for blkback without the kernel's module": [TAP_CTL, IMAGE, device(K, &[SCRIPT, PARAMS]), add(K, 1)] => [
        LISTED,
        differs(
            &["node vbd/3/51712/minor = 0", "node vbd/3/51712/pid = <tapdisk>"],
            &["tap-ctl: close *", "tap-ctl: detach *", "tap-ctl: free *"],
            "a fault: the original leaks the tapdisk that it has no device for",
        ),
    ];
};

/// Difference: the script of 4.17 and 4.18 publishes no numbers.
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

pub(crate) const OLD_CASES: &[Case] = cases! {
    "an image": [TAP_CTL, MODULE, IMAGE, device(K, &[SCRIPT, PARAMS]), add(K, 0)] => [NEW_WAY];
    "an image, added twice": [TAP_CTL, MODULE, IMAGE, device(K, &[SCRIPT, PARAMS]), add(K, 0), add(K, 0)] => [
        NEW_WAY,
        differs(
            &["loop on $D/a.img x 2", "* connected when it had: * x 2"],
            &["loop on $D/a.img", "* connected when it had: physical-device physical-device-path"],
            "a fault: the original starts a second tapdisk, and leaks the first",
        ),
    ];
    "an image, added and removed": [
        TAP_CTL, MODULE, IMAGE, device(K, &[SCRIPT, PARAMS]), add(K, 0), close(K), remove(K, 0)
    ] => [
        NEW_WAY,
        STEP_BY_STEP,
        DISCONNECTED,
        differs(&["tap-ctl: list -t *"], &[], "who serves the image is in the journal"),
    ];
    "an image, removed without having been added": [
        TAP_CTL, MODULE, IMAGE, device(K, &[SCRIPT, PARAMS]), remove(K, 1)
    ] => [
        differs(
            &[
                "modprobe: blktap", "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error", "run 1, remove: exit 1", "tap-ctl: check",
                "tap-ctl: list -t *"
            ],
            &["run 1, remove: exit 0"],
            "a removal that finds nothing to take down is no error",
        ),
    ];
    "an image that is missing": [TAP_CTL, MODULE, device(K, &[SCRIPT, PARAMS]), add(K, 2)] => [
        differs(
            &["modprobe: blktap", "run 1, add: exit 2", "tap-ctl: check", "tap-ctl: create *"],
            &[
                "node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error",
                "run 1, add: exit 1"
            ],
            "the original fails without a word in the store",
        ),
    ];
    "an image that another guest writes": [
        TAP_CTL, MODULE, IMAGE, device(K, &[SCRIPT, PARAMS]), device(L, &[SCRIPT, PARAMS]), add(K, 0), add(L, 0)
    ] => [
        NEW_WAY,
        differs(
            &[
                "loop on $D/a.img x 2", "node vbd/4/51712/hotplug-status = connected",
                "node vbd/4/51712/physical-device = *", "node vbd/4/51712/physical-device-path = *",
                "run 2, add: exit 0", "vbd/4/51712 connected when it had: *"
            ],
            &[
                "loop on $D/a.img", "node vbd/4/51712/hotplug-error = <text>", "node vbd/4/51712/hotplug-status = busy",
                "run 2, add: exit 1"
            ],
            "the original does not look who else uses the image: two guests write it",
        ),
    ];
};
