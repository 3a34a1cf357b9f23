//! `block-dummy`: disks for tests, selected by their script or their type.

use xenplug_tests::{
    cases,
    differential::{
        ABSENT, Case, Difference, Step,
        table::{add, close, device, differs, remove, sh},
    },
    harness::Device,
};

use super::DISCONNECTED;

const A: Device = Device::disk(3, 0);
const B: Device = Device::disk(4, 0);

const IMAGE: Step = Step::Sh("truncate -s 4M $D/a.img");
const DUMMY: (&str, &str) = ("script", "/etc/xen/scripts/block-dummy");

/// Difference: the daemon's loop devices have autoclear set.
const AUTOCLEAR: Difference = Difference {
    original: &[],
    ours: &["loop on *: autoclear*"],
    because: "our loop devices are cleared by the kernel with their last user: nothing leaks, whatever becomes of the daemon",
};

pub(crate) const CASES: &[Case] = cases! {
    "a dummy": [IMAGE, device(A, &[DUMMY, ("params", "dummy:$D/a.img")]), add(A, 0)] => [AUTOCLEAR];
    "a dummy, read-only": [IMAGE, device(A, &[DUMMY, ("params", "dummy:$D/a.img"), ("mode", "r")]), add(A, 0)] => [
        AUTOCLEAR
    ];
    "a dummy, by type": [IMAGE, device(A, &[("params", "dummy:$D/a.img"), ("type", "dummy")]), add(A, 0)] => [
        AUTOCLEAR,
        differs(
            &["* connected when it had: "],
            &[],
            "the original of `block` reports the disk as connected before it runs that of its type",
        ),
    ];
    "a dummy that is missing": [device(A, &[DUMMY, ("params", "dummy:$D/a.img")]), add(A, 1)];
    "another word before the colon": [IMAGE, device(A, &[DUMMY, ("params", "file:$D/a.img")]), add(A, 1)];
    "no colon": [IMAGE, device(A, &[DUMMY, ("params", "dummy")]), add(A, 1)];
    "no params of a dummy": [IMAGE, device(A, &[DUMMY, ("params", ABSENT)]), add(A, 1)];
    "a dummy whose name has a space": [
        sh("truncate -s 4M \"$D/a b.img\""), device(A, &[DUMMY, ("params", "dummy:$D/a b.img")]), add(A, 1)
    ] => [
        AUTOCLEAR,
        differs(
            &[
                "node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error",
                "run 1, add: exit 1"
            ],
            &[
                "loop on $D/a b.img", "node vbd/3/51712/hotplug-status = connected", "node vbd/3/51712/node = *",
                "node vbd/3/51712/physical-device = *", "node vbd/3/51712/physical-device-path = *",
                "run 1, add: exit 0", "* connected when it had: node physical-device physical-device-path"
            ],
            "a fault: the original splits the path at spaces",
        ),
    ];
    "a dummy that another guest writes": [
        IMAGE, device(A, &[DUMMY, ("params", "dummy:$D/a.img")]), device(B, &[DUMMY, ("params", "dummy:$D/a.img")]),
        add(A, 0), add(B, 0)
    ] => [
        AUTOCLEAR,
        differs(
            &[
                "loop on $D/a.img x 2", "node vbd/4/51712/hotplug-status = connected", "node vbd/4/51712/node = *",
                "node vbd/4/51712/physical-device = *", "node vbd/4/51712/physical-device-path = *",
                "run 2, add: exit 0", "vbd/4/51712 connected when it had: *"
            ],
            &[
                "loop on $D/a.img", "node vbd/4/51712/hotplug-error = <text>", "node vbd/4/51712/hotplug-status = busy",
                "run 2, add: exit 1"
            ],
            "the original does not look who else uses the file: two guests write it",
        ),
    ];
    "a dummy, added twice": [IMAGE, device(A, &[DUMMY, ("params", "dummy:$D/a.img")]), add(A, 0), add(A, 0)] => [
        AUTOCLEAR,
        differs(
            &["loop on $D/a.img x 2", "* connected when it had: * x 2"],
            &["loop on $D/a.img", "* connected when it had: node physical-device physical-device-path"],
            "a fault: the original attaches a second loop device, and leaks the first",
        ),
    ];
    "a dummy, added and removed": [
        IMAGE, device(A, &[DUMMY, ("params", "dummy:$D/a.img")]), add(A, 0), close(A), remove(A, 0)
    ] => [DISCONNECTED];
    "a dummy, removed after its image was deleted": [
        IMAGE, device(A, &[DUMMY, ("params", "dummy:$D/a.img")]), add(A, 0), sh("rm $D/a.img"), close(A), remove(A, 0)
    ] => [DISCONNECTED];
};
