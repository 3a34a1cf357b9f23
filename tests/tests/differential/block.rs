//! `block`: disks on files and block devices.

use xenplug_tests::{
    cases,
    differential::{
        ABSENT, Case, Difference, Step,
        table::{add, close, device, differs, forget, remove, run, sh, write, write_at},
    },
    harness::Device,
};

use super::{DISCONNECTED, USAGE};

/// Disks of guest 3, and of guest 4.
const A: Device = Device::disk(3, 0);
const B: Device = Device::disk(3, 1);
const C: Device = Device::disk(4, 0);

const IMAGE: Step = Step::Sh("truncate -s 4M $D/a.img");
const SECOND: Step = Step::Sh("truncate -s 4M $D/b.img");
/// A block device, `$D/dev`.
const BLOCK: Step = Step::Sh(
    "truncate -s 4M $D/disk.img; loop=$(losetup -f --show $D/disk.img); \
     mknod $D/dev b 7 ${loop#/dev/loop}",
);
/// The same block device, with a file system.
const FORMATTED: Step = Step::Sh(
    "truncate -s 4M $D/disk.img; mke2fs -q $D/disk.img; loop=$(losetup -f --show $D/disk.img); \
     mknod $D/dev b 7 ${loop#/dev/loop}",
);
const ON_BLOCK: &[(&str, &str)] = &[("params", "$D/dev")];
const ON_BLOCK_READ_ONLY: &[(&str, &str)] = &[("params", "$D/dev"), ("mode", "r")];

/// Difference: the daemon's loop devices have autoclear set.
const AUTOCLEAR: Difference = Difference {
    original: &[],
    ours: &["loop on *: autoclear*"],
    because: "our loop devices are cleared by the kernel with their last user: nothing leaks, whatever becomes of the daemon",
};

/// Difference: the original reports a missing disk as connected, and fails only because of its last line.
const NOTHING_THERE: Difference = Difference {
    original: &["node */hotplug-status = connected", "* connected when it had: "],
    ours: &["node */hotplug-status = error", "node */hotplug-error = <text>"],
    because: "what is not there is an error, and not connected: the original reports it as connected and fails only by accident of its last line",
};

/// Returns the difference that the original attaches an image file, and the daemon refuses it.
const fn refused(because: &'static str) -> Difference {
    Difference {
        original: &[
            "loop on *",
            "node */hotplug-status = connected",
            "node */node = *",
            "node */physical-device = *",
            "node */physical-device-path = *",
            "run 1, add: exit 0",
            "* connected when it had: node physical-device physical-device-path",
        ],
        ours: &[
            "node */hotplug-status = error",
            "node */hotplug-error = <text>",
            "run 1, add: exit 1",
        ],
        because,
    }
}

/// Returns the difference that the original attaches a block device, and the daemon refuses it.
const fn refused_block_device(because: &'static str) -> Difference {
    Difference {
        original: &[
            "node */hotplug-status = connected",
            "node */physical-device = *",
            "node */physical-device-path = *",
            "run 1, add: exit 0",
            "* connected when it had: physical-device physical-device-path",
        ],
        ours: &[
            "node */hotplug-status = error",
            "node */hotplug-error = <text>",
            "run 1, add: exit 1",
        ],
        because,
    }
}

pub(crate) const CASES: &[Case] = cases! {
    // Files.
    "an image file": [IMAGE, device(A, &[]), add(A, 0)] => [AUTOCLEAR];
    "an image file, read-only": [IMAGE, device(A, &[("mode", "r")]), add(A, 0)] => [AUTOCLEAR];
    "mode ro": [IMAGE, device(A, &[("mode", "ro")]), add(A, 0)] => [AUTOCLEAR];
    "mode rw": [IMAGE, device(A, &[("mode", "rw")]), add(A, 0)] => [AUTOCLEAR];
    "mode w!": [IMAGE, device(A, &[("mode", "w!")]), add(A, 0)] => [AUTOCLEAR];
    "mode r!": [IMAGE, device(A, &[("mode", "r!")]), add(A, 0)] => [AUTOCLEAR];
    "a mode that is no mode": [IMAGE, device(A, &[("mode", "x")]), add(A, 0)] => [AUTOCLEAR];
    "direct I/O that is safe": [IMAGE, device(A, &[("direct-io-safe", "1")]), add(A, 0)] => [
        AUTOCLEAR,
        differs(
            &[],
            &["loop on *: direct I/O"],
            "direct-io-safe says that the page cache is not needed; the original does not read it",
        ),
    ];
    "a cdrom": [IMAGE, device(A, &[("device-type", "cdrom"), ("mode", "r"), ("removable", "1")]), add(A, 0)] => [
        AUTOCLEAR
    ];
    "an image file whose name has spaces": [
        sh("truncate -s 4M \"$D/my own disk.img\""), device(A, &[("params", "$D/my own disk.img")]), add(A, 0)
    ] => [AUTOCLEAR];
    "an image file whose name is a shell's": [
        sh("truncate -s 4M \"$D/\\$(reboot);*.img\""), device(A, &[("params", "$D/$(reboot);*.img")]), add(A, 0)
    ] => [AUTOCLEAR];
    "an image file whose name is not UTF-8": [
        sh("truncate -s 4M $D/$'a\\xff.img'"), device(A, &[("params", "$D/a\\xff.img")]), add(A, 1)
    ] => [NOTHING_THERE];
    "a symlink to an image file": [IMAGE, sh("ln -s a.img $D/link"), device(A, &[("params", "$D/link")]), add(A, 0)] => [
        AUTOCLEAR
    ];
    "a symlink to a symlink to an image file": [
        IMAGE, sh("ln -s a.img $D/one; ln -s $D/one $D/two"), device(A, &[("params", "$D/two")]), add(A, 0)
    ] => [AUTOCLEAR];
    "a symlink that leads to itself": [sh("ln -s loop $D/loop"), device(A, &[("params", "$D/loop")]), add(A, 1)] => [
        NOTHING_THERE
    ];
    "a symlink that leads nowhere": [sh("ln -s nowhere $D/link"), device(A, &[("params", "$D/link")]), add(A, 1)] => [
        NOTHING_THERE
    ];
    "a symlink out of what is granted": [
        sh("truncate -s 4M $O/a.img; ln -s $O/a.img $D/link"), device(A, &[("params", "$D/link")]), add(A, 0)
    ] => [refused("what the operator did not grant is refused, and so is a link that leads there")];
    "an image file that is not granted": [
        sh("truncate -s 4M $O/a.img"), device(A, &[("params", "$O/a.img")]), add(A, 0)
    ] => [refused("what the operator did not grant is refused")];
    "an image file that is missing": [device(A, &[]), add(A, 1)] => [NOTHING_THERE];
    "a directory": [sh("mkdir $D/directory"), device(A, &[("params", "$D/directory")]), add(A, 1)] => [NOTHING_THERE];
    "a fifo": [sh("mkfifo $D/fifo"), device(A, &[("params", "$D/fifo")]), add(A, 1)] => [NOTHING_THERE];
    "a character device": [sh("mknod $D/null c 1 3"), device(A, &[("params", "$D/null")]), add(A, 1)] => [
        NOTHING_THERE
    ];
    "an empty file": [sh("touch $D/a.img"), device(A, &[]), add(A, 0)] => [AUTOCLEAR];
    "a file that is no whole number of sectors": [sh("truncate -s 1000001 $D/a.img"), device(A, &[]), add(A, 0)] => [
        AUTOCLEAR
    ];
    "a read-only file, to be written": [IMAGE, sh("chmod 444 $D/a.img"), device(A, &[]), add(A, 1)];
    "a read-only file, read": [IMAGE, sh("chmod 444 $D/a.img"), device(A, &[("mode", "r")]), add(A, 0)] => [AUTOCLEAR];
    "a path with dots": [IMAGE, sh("mkdir $D/sub"), device(A, &[("params", "$D/sub/../a.img")]), add(A, 0)] => [
        refused("a grant goes by the path as it is written: one with `..` is refused, not interpreted")
    ];
    "a relative path": [IMAGE, device(A, &[("params", "images/a.img")]), add(A, 1)] => [NOTHING_THERE];
    // Nodes.
    "no params": [IMAGE, device(A, &[("params", ABSENT)]), add(A, 1)];
    "empty params": [IMAGE, device(A, &[("params", "")]), add(A, 1)];
    "no mode": [IMAGE, device(A, &[("mode", ABSENT)]), add(A, 1)];
    "no type": [IMAGE, device(A, &[("type", ABSENT)]), add(A, 0)] => [AUTOCLEAR];
    "no frontend-id": [IMAGE, device(A, &[]), write(A, "frontend-id", ABSENT), add(A, 1)] => [
        AUTOCLEAR,
        differs(
            &[
                "node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error",
                "run 1, add: exit 1"
            ],
            &[
                "loop on $D/a.img", "node vbd/3/51712/hotplug-status = connected", "node vbd/3/51712/node = *",
                "node vbd/3/51712/physical-device = *", "node vbd/3/51712/physical-device-path = *",
                "run 1, add: exit 0", "* connected when it had: node physical-device physical-device-path"
            ],
            "whose device it is tells its place in the store, which only the toolstack decides",
        ),
    ];
    "a guest without a vm": [IMAGE, device(A, &[]), write_at("/local/domain/3/vm", ABSENT), add(A, 0)] => [AUTOCLEAR];
    "state 6": [IMAGE, device(A, &[]), write(A, "online", "0"), write(A, "state", "6"), add(A, 1)];
    "a block device in state 4": [BLOCK, device(A, ON_BLOCK), write(A, "state", "4"), add(A, 0)] => [
        refused_block_device("libxl runs the script in state 2; the original looks at the state for files alone, we wait for it and then refuse")
    ];
    "no directory in the store": [IMAGE, device(A, &[]), forget(A), add(A, 1)] => [
        differs(
            &[
                "node vbd = ", "node vbd/3 = ", "node vbd/3/51712 = ", "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error"
            ],
            &[],
            "a directory that has gone is never made again: it would stay for ever",
        ),
    ];
    "a physical-device that is set already": [IMAGE, device(A, &[("physical-device", "7:3e7")]), add(A, 0)] => [
        AUTOCLEAR,
        differs(
            &["node vbd/3/51712/physical-device = 7:3e7"],
            &[
                "loop on $D/a.img", "node vbd/3/51712/hotplug-status = connected", "node vbd/3/51712/node = *",
                "node vbd/3/51712/physical-device = *", "node vbd/3/51712/physical-device-path = *",
                "* connected when it had: node physical-device physical-device-path"
            ],
            "the original takes the node for its own work and reports nothing; whether a device is plugged, our \
             record tells",
        ),
    ];
    // Block devices.
    "a block device": [BLOCK, device(A, ON_BLOCK), add(A, 0)];
    "a block device, read-only": [BLOCK, device(A, ON_BLOCK_READ_ONLY), add(A, 0)];
    "a symlink to a block device": [BLOCK, sh("ln -s dev $D/link"), device(A, &[("params", "$D/link")]), add(A, 0)];
    "a bare name, of nothing": [device(A, &[("params", "xenplug-no-such-device")]), add(A, 1)] => [NOTHING_THERE];
    "a bare name, of a block device below /dev": [
        BLOCK, sh("mount -t tmpfs none /dev/shm; cp -a $D/dev /dev/shm/disk"), device(A, &[("params", "shm/disk")]),
        add(A, 1)
    ] => [
        differs(
            &["run 1, add: exit 1", "* connected when it had: "],
            &[
                "node vbd/3/51712/physical-device = *", "node vbd/3/51712/physical-device-path = /dev/shm/disk",
                "run 1, add: exit 0", "* connected when it had: physical-device physical-device-path"
            ],
            "a fault: the original looks for the name in its working directory before it puts /dev before it",
        ),
    ];
    "a block device that is mounted": [
        FORMATTED, sh("mkdir $D/mnt; mount $D/dev $D/mnt"), device(A, ON_BLOCK), add(A, 1)
    ];
    "a block device that is mounted, to be read": [
        FORMATTED, sh("mkdir $D/mnt; mount $D/dev $D/mnt"), device(A, ON_BLOCK_READ_ONLY), add(A, 1)
    ];
    "a block device that is mounted read-only, to be read": [
        FORMATTED, sh("mkdir $D/mnt; mount -o ro $D/dev $D/mnt"), device(A, ON_BLOCK_READ_ONLY), add(A, 0)
    ];
    "a block device that is mounted, not checked": [
        FORMATTED, sh("mkdir $D/mnt; mount $D/dev $D/mnt"), device(A, &[("params", "$D/dev"), ("mode", "w!")]),
        add(A, 0)
    ];
    // Sharing.
    "a block device that another guest writes": [BLOCK, device(A, ON_BLOCK), device(C, ON_BLOCK), add(A, 0), add(C, 1)];
    "a block device that another guest writes, to be read": [
        BLOCK, device(A, ON_BLOCK), device(C, ON_BLOCK_READ_ONLY), add(A, 0), add(C, 1)
    ];
    "a block device that another guest reads, to be written": [
        BLOCK, device(A, ON_BLOCK_READ_ONLY), device(C, ON_BLOCK), add(A, 0), add(C, 1)
    ];
    "a block device that two guests read": [
        BLOCK, device(A, ON_BLOCK_READ_ONLY), device(C, ON_BLOCK_READ_ONLY), add(A, 0), add(C, 0)
    ];
    "a block device that two guests write, not checked": [
        BLOCK, device(A, &[("params", "$D/dev"), ("mode", "w!")]), device(C, &[("params", "$D/dev"), ("mode", "w!")]),
        add(A, 0), add(C, 0)
    ];
    "a block device that a guest writes unchecked, to be written by another": [
        BLOCK, device(A, &[("params", "$D/dev"), ("mode", "w!")]), device(C, ON_BLOCK), add(A, 0), add(C, 1)
    ];
    "a block device twice in the same guest": [BLOCK, device(A, ON_BLOCK), device(B, ON_BLOCK), add(A, 0), add(B, 0)];
    "a block device of a stub domain's guest": [
        BLOCK, device(A, ON_BLOCK), device(C, ON_BLOCK), write_at("/local/domain/4/target", "3"), add(A, 0), add(C, 0)
    ];
    "an image file that another guest writes": [IMAGE, device(A, &[]), device(C, &[]), add(A, 0), add(C, 0)] => [
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
            "the original looks for the file in `losetup -a` by its device number in hexadecimal, which is decimal \
             there: two guests write the same file",
        ),
    ];
    "an image file that two guests read": [
        IMAGE, device(A, &[("mode", "r")]), device(C, &[("mode", "r")]), add(A, 0), add(C, 0)
    ] => [AUTOCLEAR];
    "an image file that two guests write, not checked": [
        IMAGE, device(A, &[("mode", "w!")]), device(C, &[("mode", "w!")]), add(A, 0), add(C, 0)
    ] => [AUTOCLEAR];
    // Repeated and late calls.
    "added twice": [IMAGE, device(A, &[]), add(A, 0), add(A, 0)] => [AUTOCLEAR];
    "added and removed": [IMAGE, device(A, &[]), add(A, 0), close(A), remove(A, 0)] => [DISCONNECTED];
    "a block device is added and removed": [BLOCK, device(A, ON_BLOCK), add(A, 0), close(A), remove(A, 0)] => [
        DISCONNECTED
    ];
    "removed without having been added": [IMAGE, device(A, &[]), close(A), remove(A, 1)] => [
        differs(
            &[
                "node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error",
                "run 1, remove: exit 1"
            ],
            &["run 1, remove: exit 0"],
            "a removal that finds nothing to take down is no error",
        ),
    ];
    // Removed once only: a second time the original would detach any loop device that has the number by then.
    "removed after its image was deleted": [
        IMAGE, device(A, &[]), add(A, 0), sh("rm $D/a.img"), close(A), remove(A, 0)
    ] => [
        DISCONNECTED,
        differs(
            &["loop on $D/a.img (deleted)"],
            &[],
            "a fault: the original looks at the file again, and leaks its loop device",
        ),
    ];
    "removed after its image was renamed": [
        IMAGE, device(A, &[]), add(A, 0), sh("mv $D/a.img $D/b.img"), close(A), remove(A, 0)
    ] => [
        DISCONNECTED,
        differs(
            &[
                "loop on $D/b.img", "node vbd/3/51712/node = <loop on $D/b.img>",
                "node vbd/3/51712/physical-device = *", "node vbd/3/51712/physical-device-path = *"
            ],
            &[
                "node vbd/3/51712/node = <loop on $D/a.img>", "node vbd/3/51712/physical-device = *",
                "node vbd/3/51712/physical-device-path = *"
            ],
            "a fault: the original looks at the file again, and leaks its loop device",
        ),
    ];
    "removed after its params were": [
        IMAGE, device(A, &[]), add(A, 0), write(A, "params", ABSENT), close(A), remove(A, 1)
    ] => [
        differs(
            &[
                "loop on $D/a.img", "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error", "run 2, remove: exit 1"
            ],
            &["node vbd/3/51712/hotplug-status = disconnected", "run 2, remove: exit 0"],
            "a fault: the original needs the node to take down what it has set up, and leaks its loop device",
        ),
    ];
    "removed after its directory was": [IMAGE, device(A, &[]), add(A, 0), forget(A), remove(A, 1)] => [
        differs(
            &[
                "loop on $D/a.img", "node vbd = ", "node vbd/3 = ", "node vbd/3/51712 = ",
                "node vbd/3/51712/hotplug-error = <text>", "node vbd/3/51712/hotplug-status = error",
                "run 2, remove: exit 1"
            ],
            &["run 2, remove: exit 0"],
            "a fault: the original leaks its loop device, and makes the directory again",
        ),
    ];
    "added, removed, and added anew": [
        IMAGE, device(A, &[]), add(A, 0), close(A), remove(A, 0), forget(A), device(A, &[]), add(A, 0)
    ] => [AUTOCLEAR];
    "two disks of a guest, one of which is removed": [
        IMAGE, SECOND, device(A, &[]), device(B, &[("params", "$D/b.img")]), add(A, 0), add(B, 0), close(A),
        remove(A, 0)
    ] => [AUTOCLEAR, DISCONNECTED];
    "a failed add is tried again": [
        sh("ln -s a.img $D/link"), device(A, &[("params", "$D/link")]), add(A, 1), IMAGE, add(A, 0)
    ] => [
        AUTOCLEAR,
        differs(&["* connected when it had: "], &[], "the original reports what is not there as connected"),
    ];
    "a word that is no action": [IMAGE, device(A, &[]), run(A, "online", 1)] => [USAGE];
};
