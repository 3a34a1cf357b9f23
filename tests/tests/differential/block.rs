//! `block`: disks on files and block devices.

use xenplug_tests::{
    differential::{ABSENT, Case, Difference, Step},
    harness::Device,
};

use super::{DISCONNECTED, USAGE};

/// Guest 3's disks, and guest 4's.
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
/// The same, with a file system.
const FORMATTED: Step = Step::Sh(
    "truncate -s 4M $D/disk.img; mke2fs -q $D/disk.img; loop=$(losetup -f --show $D/disk.img); \
     mknod $D/dev b 7 ${loop#/dev/loop}",
);
const ON_BLOCK: &[(&str, &str)] = &[("params", "$D/dev")];
const ON_BLOCK_READ_ONLY: &[(&str, &str)] = &[("params", "$D/dev"), ("mode", "r")];

/// The kernel takes our loop devices back with their last user.
const AUTOCLEAR: Difference = Difference {
    original: &[],
    ours: &["loop on *: autoclear*"],
    because: "our loop devices are cleared by the kernel with their last user: nothing leaks, whatever becomes of the daemon",
};

/// The original reports a path at which there is no disk as connected, and fails by accident of its last line.
const NOTHING_THERE: Difference = Difference {
    original: &["node */hotplug-status = connected", "* connected when it had: "],
    ours: &["node */hotplug-status = error", "node */hotplug-error = <text>"],
    because: "what is not there is an error, and not connected: the original reports it as connected and fails only by accident of its last line",
};

/// The original plugs an image file that ours refuses.
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

/// The original plugs a block device that ours refuses.
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

pub(crate) const CASES: &[Case] = &[
    // Files.
    Case {
        name: "an image file",
        steps: &[IMAGE, Step::Device(A, &[]), Step::add(A, 0)],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "an image file, read-only",
        steps: &[IMAGE, Step::Device(A, &[("mode", "r")]), Step::add(A, 0)],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "mode ro",
        steps: &[IMAGE, Step::Device(A, &[("mode", "ro")]), Step::add(A, 0)],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "mode rw",
        steps: &[IMAGE, Step::Device(A, &[("mode", "rw")]), Step::add(A, 0)],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "mode w!",
        steps: &[IMAGE, Step::Device(A, &[("mode", "w!")]), Step::add(A, 0)],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "mode r!",
        steps: &[IMAGE, Step::Device(A, &[("mode", "r!")]), Step::add(A, 0)],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "a mode that is no mode",
        steps: &[IMAGE, Step::Device(A, &[("mode", "x")]), Step::add(A, 0)],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "direct I/O that is safe",
        steps: &[IMAGE, Step::Device(A, &[("direct-io-safe", "1")]), Step::add(A, 0)],
        differences: &[
            AUTOCLEAR,
            Difference {
                original: &[],
                ours: &["loop on *: direct I/O"],
                because: "direct-io-safe says that the page cache is not needed; the original does not read it",
            },
        ],
    },
    Case {
        name: "a cdrom",
        steps: &[
            IMAGE,
            Step::Device(A, &[("device-type", "cdrom"), ("mode", "r"), ("removable", "1")]),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "an image file whose name has spaces",
        steps: &[
            Step::Sh("truncate -s 4M \"$D/my own disk.img\""),
            Step::Device(A, &[("params", "$D/my own disk.img")]),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "an image file whose name is a shell's",
        steps: &[
            Step::Sh("truncate -s 4M \"$D/\\$(reboot);*.img\""),
            Step::Device(A, &[("params", "$D/$(reboot);*.img")]),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "an image file whose name is not UTF-8",
        steps: &[
            Step::Sh("truncate -s 4M $D/$'a\\xff.img'"),
            Step::Device(A, &[("params", "$D/a\\xff.img")]),
            Step::add(A, 1),
        ],
        differences: &[NOTHING_THERE],
    },
    Case {
        name: "a symlink to an image file",
        steps: &[
            IMAGE,
            Step::Sh("ln -s a.img $D/link"),
            Step::Device(A, &[("params", "$D/link")]),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "a symlink to a symlink to an image file",
        steps: &[
            IMAGE,
            Step::Sh("ln -s a.img $D/one; ln -s $D/one $D/two"),
            Step::Device(A, &[("params", "$D/two")]),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "a symlink that leads to itself",
        steps: &[
            Step::Sh("ln -s loop $D/loop"),
            Step::Device(A, &[("params", "$D/loop")]),
            Step::add(A, 1),
        ],
        differences: &[NOTHING_THERE],
    },
    Case {
        name: "a symlink that leads nowhere",
        steps: &[
            Step::Sh("ln -s nowhere $D/link"),
            Step::Device(A, &[("params", "$D/link")]),
            Step::add(A, 1),
        ],
        differences: &[NOTHING_THERE],
    },
    Case {
        name: "a symlink out of what is granted",
        steps: &[
            Step::Sh("truncate -s 4M $O/a.img; ln -s $O/a.img $D/link"),
            Step::Device(A, &[("params", "$D/link")]),
            Step::add(A, 0),
        ],
        differences: &[refused(
            "what the operator did not grant is refused, and so is a link that leads there",
        )],
    },
    Case {
        name: "an image file that is not granted",
        steps: &[
            Step::Sh("truncate -s 4M $O/a.img"),
            Step::Device(A, &[("params", "$O/a.img")]),
            Step::add(A, 0),
        ],
        differences: &[refused("what the operator did not grant is refused")],
    },
    Case {
        name: "an image file that is missing",
        steps: &[Step::Device(A, &[]), Step::add(A, 1)],
        differences: &[NOTHING_THERE],
    },
    Case {
        name: "a directory",
        steps: &[
            Step::Sh("mkdir $D/directory"),
            Step::Device(A, &[("params", "$D/directory")]),
            Step::add(A, 1),
        ],
        differences: &[NOTHING_THERE],
    },
    Case {
        name: "a fifo",
        steps: &[
            Step::Sh("mkfifo $D/fifo"),
            Step::Device(A, &[("params", "$D/fifo")]),
            Step::add(A, 1),
        ],
        differences: &[NOTHING_THERE],
    },
    Case {
        name: "a character device",
        steps: &[
            Step::Sh("mknod $D/null c 1 3"),
            Step::Device(A, &[("params", "$D/null")]),
            Step::add(A, 1),
        ],
        differences: &[NOTHING_THERE],
    },
    Case {
        name: "an empty file",
        steps: &[Step::Sh("touch $D/a.img"), Step::Device(A, &[]), Step::add(A, 0)],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "a file that is no whole number of sectors",
        steps: &[
            Step::Sh("truncate -s 1000001 $D/a.img"),
            Step::Device(A, &[]),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "a read-only file, to be written",
        steps: &[
            IMAGE,
            Step::Sh("chmod 444 $D/a.img"),
            Step::Device(A, &[]),
            Step::add(A, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a read-only file, read",
        steps: &[
            IMAGE,
            Step::Sh("chmod 444 $D/a.img"),
            Step::Device(A, &[("mode", "r")]),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "a path with dots",
        steps: &[
            IMAGE,
            Step::Sh("mkdir $D/sub"),
            Step::Device(A, &[("params", "$D/sub/../a.img")]),
            Step::add(A, 0),
        ],
        differences: &[refused(
            "a grant goes by the path as it is written: one with `..` is refused, not interpreted",
        )],
    },
    Case {
        name: "a relative path",
        steps: &[IMAGE, Step::Device(A, &[("params", "images/a.img")]), Step::add(A, 1)],
        differences: &[NOTHING_THERE],
    },
    // Nodes.
    Case {
        name: "no params",
        steps: &[IMAGE, Step::Device(A, &[("params", ABSENT)]), Step::add(A, 1)],
        differences: &[],
    },
    Case {
        name: "empty params",
        steps: &[IMAGE, Step::Device(A, &[("params", "")]), Step::add(A, 1)],
        differences: &[],
    },
    Case {
        name: "no mode",
        steps: &[IMAGE, Step::Device(A, &[("mode", ABSENT)]), Step::add(A, 1)],
        differences: &[],
    },
    Case {
        name: "no type",
        steps: &[IMAGE, Step::Device(A, &[("type", ABSENT)]), Step::add(A, 0)],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "no frontend-id",
        steps: &[
            IMAGE,
            Step::Device(A, &[]),
            Step::Write(A, "frontend-id", ABSENT),
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
                    "loop on $D/a.img",
                    "node vbd/3/51712/hotplug-status = connected",
                    "node vbd/3/51712/node = *",
                    "node vbd/3/51712/physical-device = *",
                    "node vbd/3/51712/physical-device-path = *",
                    "run 1, add: exit 0",
                    "* connected when it had: node physical-device physical-device-path",
                ],
                because: "whose device it is tells its place in the store, which only the toolstack decides",
            },
        ],
    },
    Case {
        name: "a guest without a vm",
        steps: &[
            IMAGE,
            Step::Device(A, &[]),
            Step::WriteAt("/local/domain/3/vm", ABSENT),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "state 6",
        steps: &[
            IMAGE,
            Step::Device(A, &[]),
            Step::Write(A, "online", "0"),
            Step::Write(A, "state", "6"),
            Step::add(A, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a block device in state 4",
        steps: &[
            BLOCK,
            Step::Device(A, ON_BLOCK),
            Step::Write(A, "state", "4"),
            Step::add(A, 0),
        ],
        differences: &[refused_block_device(
            "libxl runs the script in state 2; the original looks at the state for files alone, we wait for it and then refuse",
        )],
    },
    Case {
        name: "no directory in the store",
        steps: &[IMAGE, Step::Device(A, &[]), Step::Forget(A), Step::add(A, 1)],
        differences: &[Difference {
            original: &[
                "node vbd = ",
                "node vbd/3 = ",
                "node vbd/3/51712 = ",
                "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error",
            ],
            ours: &[],
            because: "a directory that has gone is never made again: it would stay for ever",
        }],
    },
    Case {
        name: "a physical-device that is set already",
        steps: &[IMAGE, Step::Device(A, &[("physical-device", "7:3e7")]), Step::add(A, 0)],
        differences: &[
            AUTOCLEAR,
            Difference {
                original: &["node vbd/3/51712/physical-device = 7:3e7"],
                ours: &[
                    "loop on $D/a.img",
                    "node vbd/3/51712/hotplug-status = connected",
                    "node vbd/3/51712/node = *",
                    "node vbd/3/51712/physical-device = *",
                    "node vbd/3/51712/physical-device-path = *",
                    "* connected when it had: node physical-device physical-device-path",
                ],
                because: "the original takes the node for its own work and reports nothing; whether a device is plugged, our record tells",
            },
        ],
    },
    // Block devices.
    Case {
        name: "a block device",
        steps: &[BLOCK, Step::Device(A, ON_BLOCK), Step::add(A, 0)],
        differences: &[],
    },
    Case {
        name: "a block device, read-only",
        steps: &[BLOCK, Step::Device(A, ON_BLOCK_READ_ONLY), Step::add(A, 0)],
        differences: &[],
    },
    Case {
        name: "a symlink to a block device",
        steps: &[
            BLOCK,
            Step::Sh("ln -s dev $D/link"),
            Step::Device(A, &[("params", "$D/link")]),
            Step::add(A, 0),
        ],
        differences: &[],
    },
    Case {
        name: "a bare name, of nothing",
        steps: &[
            Step::Device(A, &[("params", "xenplug-no-such-device")]),
            Step::add(A, 1),
        ],
        differences: &[NOTHING_THERE],
    },
    Case {
        name: "a bare name, of a block device below /dev",
        steps: &[
            BLOCK,
            Step::Sh("mount -t tmpfs none /dev/shm; cp -a $D/dev /dev/shm/disk"),
            Step::Device(A, &[("params", "shm/disk")]),
            Step::add(A, 1),
        ],
        differences: &[Difference {
            original: &["run 1, add: exit 1", "* connected when it had: "],
            ours: &[
                "node vbd/3/51712/physical-device = *",
                "node vbd/3/51712/physical-device-path = /dev/shm/disk",
                "run 1, add: exit 0",
                "* connected when it had: physical-device physical-device-path",
            ],
            because: "a fault: the original looks for the name in its working directory before it puts /dev before it",
        }],
    },
    Case {
        name: "a block device that is mounted",
        steps: &[
            FORMATTED,
            Step::Sh("mkdir $D/mnt; mount $D/dev $D/mnt"),
            Step::Device(A, ON_BLOCK),
            Step::add(A, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a block device that is mounted, to be read",
        steps: &[
            FORMATTED,
            Step::Sh("mkdir $D/mnt; mount $D/dev $D/mnt"),
            Step::Device(A, ON_BLOCK_READ_ONLY),
            Step::add(A, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a block device that is mounted read-only, to be read",
        steps: &[
            FORMATTED,
            Step::Sh("mkdir $D/mnt; mount -o ro $D/dev $D/mnt"),
            Step::Device(A, ON_BLOCK_READ_ONLY),
            Step::add(A, 0),
        ],
        differences: &[],
    },
    Case {
        name: "a block device that is mounted, not checked",
        steps: &[
            FORMATTED,
            Step::Sh("mkdir $D/mnt; mount $D/dev $D/mnt"),
            Step::Device(A, &[("params", "$D/dev"), ("mode", "w!")]),
            Step::add(A, 0),
        ],
        differences: &[],
    },
    // Sharing.
    Case {
        name: "a block device that another guest writes",
        steps: &[
            BLOCK,
            Step::Device(A, ON_BLOCK),
            Step::Device(C, ON_BLOCK),
            Step::add(A, 0),
            Step::add(C, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a block device that another guest writes, to be read",
        steps: &[
            BLOCK,
            Step::Device(A, ON_BLOCK),
            Step::Device(C, ON_BLOCK_READ_ONLY),
            Step::add(A, 0),
            Step::add(C, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a block device that another guest reads, to be written",
        steps: &[
            BLOCK,
            Step::Device(A, ON_BLOCK_READ_ONLY),
            Step::Device(C, ON_BLOCK),
            Step::add(A, 0),
            Step::add(C, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a block device that two guests read",
        steps: &[
            BLOCK,
            Step::Device(A, ON_BLOCK_READ_ONLY),
            Step::Device(C, ON_BLOCK_READ_ONLY),
            Step::add(A, 0),
            Step::add(C, 0),
        ],
        differences: &[],
    },
    Case {
        name: "a block device that two guests write, not checked",
        steps: &[
            BLOCK,
            Step::Device(A, &[("params", "$D/dev"), ("mode", "w!")]),
            Step::Device(C, &[("params", "$D/dev"), ("mode", "w!")]),
            Step::add(A, 0),
            Step::add(C, 0),
        ],
        differences: &[],
    },
    Case {
        name: "a block device that a guest writes unchecked, to be written by another",
        steps: &[
            BLOCK,
            Step::Device(A, &[("params", "$D/dev"), ("mode", "w!")]),
            Step::Device(C, ON_BLOCK),
            Step::add(A, 0),
            Step::add(C, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a block device twice in the same guest",
        steps: &[
            BLOCK,
            Step::Device(A, ON_BLOCK),
            Step::Device(B, ON_BLOCK),
            Step::add(A, 0),
            Step::add(B, 0),
        ],
        differences: &[],
    },
    Case {
        name: "a block device of a stub domain's guest",
        steps: &[
            BLOCK,
            Step::Device(A, ON_BLOCK),
            Step::Device(C, ON_BLOCK),
            Step::WriteAt("/local/domain/4/target", "3"),
            Step::add(A, 0),
            Step::add(C, 0),
        ],
        differences: &[],
    },
    Case {
        name: "an image file that another guest writes",
        steps: &[
            IMAGE,
            Step::Device(A, &[]),
            Step::Device(C, &[]),
            Step::add(A, 0),
            Step::add(C, 0),
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
                because: "the original looks for the file in `losetup -a` by its device number in hexadecimal, which is decimal there: two guests write the same file",
            },
        ],
    },
    Case {
        name: "an image file that two guests read",
        steps: &[
            IMAGE,
            Step::Device(A, &[("mode", "r")]),
            Step::Device(C, &[("mode", "r")]),
            Step::add(A, 0),
            Step::add(C, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "an image file that two guests write, not checked",
        steps: &[
            IMAGE,
            Step::Device(A, &[("mode", "w!")]),
            Step::Device(C, &[("mode", "w!")]),
            Step::add(A, 0),
            Step::add(C, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    // Life.
    Case {
        name: "added twice",
        steps: &[IMAGE, Step::Device(A, &[]), Step::add(A, 0), Step::add(A, 0)],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "added and removed",
        steps: &[
            IMAGE,
            Step::Device(A, &[]),
            Step::add(A, 0),
            Step::Close(A),
            Step::remove(A, 0),
        ],
        differences: &[DISCONNECTED],
    },
    Case {
        name: "a block device is added and removed",
        steps: &[
            BLOCK,
            Step::Device(A, ON_BLOCK),
            Step::add(A, 0),
            Step::Close(A),
            Step::remove(A, 0),
        ],
        differences: &[DISCONNECTED],
    },
    Case {
        name: "removed without having been added",
        steps: &[IMAGE, Step::Device(A, &[]), Step::Close(A), Step::remove(A, 1)],
        differences: &[Difference {
            original: &[
                "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error",
                "run 1, remove: exit 1",
            ],
            ours: &["run 1, remove: exit 0"],
            because: "a removal that finds nothing to take down is no error",
        }],
    },
    // Not twice: the original detaches the loop device of that number, whosever it is by then.
    Case {
        name: "removed after its image was deleted",
        steps: &[
            IMAGE,
            Step::Device(A, &[]),
            Step::add(A, 0),
            Step::Sh("rm $D/a.img"),
            Step::Close(A),
            Step::remove(A, 0),
        ],
        differences: &[
            DISCONNECTED,
            Difference {
                original: &["loop on $D/a.img (deleted)"],
                ours: &[],
                because: "a fault: the original looks at the file again, and leaks its loop device",
            },
        ],
    },
    Case {
        name: "removed after its image was renamed",
        steps: &[
            IMAGE,
            Step::Device(A, &[]),
            Step::add(A, 0),
            Step::Sh("mv $D/a.img $D/b.img"),
            Step::Close(A),
            Step::remove(A, 0),
        ],
        differences: &[
            DISCONNECTED,
            Difference {
                original: &[
                    "loop on $D/b.img",
                    "node vbd/3/51712/node = <loop on $D/b.img>",
                    "node vbd/3/51712/physical-device = *",
                    "node vbd/3/51712/physical-device-path = *",
                ],
                ours: &[
                    "node vbd/3/51712/node = <loop on $D/a.img>",
                    "node vbd/3/51712/physical-device = *",
                    "node vbd/3/51712/physical-device-path = *",
                ],
                because: "a fault: the original looks at the file again, and leaks its loop device",
            },
        ],
    },
    Case {
        name: "removed after its params were",
        steps: &[
            IMAGE,
            Step::Device(A, &[]),
            Step::add(A, 0),
            Step::Write(A, "params", ABSENT),
            Step::Close(A),
            Step::remove(A, 1),
        ],
        differences: &[Difference {
            original: &[
                "loop on $D/a.img",
                "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error",
                "run 2, remove: exit 1",
            ],
            ours: &[
                "node vbd/3/51712/hotplug-status = disconnected",
                "run 2, remove: exit 0",
            ],
            because: "a fault: the original needs the node to take down what it has set up, and leaks its loop device",
        }],
    },
    Case {
        name: "removed after its directory was",
        steps: &[
            IMAGE,
            Step::Device(A, &[]),
            Step::add(A, 0),
            Step::Forget(A),
            Step::remove(A, 1),
        ],
        differences: &[Difference {
            original: &[
                "loop on $D/a.img",
                "node vbd = ",
                "node vbd/3 = ",
                "node vbd/3/51712 = ",
                "node vbd/3/51712/hotplug-error = <text>",
                "node vbd/3/51712/hotplug-status = error",
                "run 2, remove: exit 1",
            ],
            ours: &["run 2, remove: exit 0"],
            because: "a fault: the original leaks its loop device, and makes the directory again",
        }],
    },
    Case {
        name: "added, removed, and added anew",
        steps: &[
            IMAGE,
            Step::Device(A, &[]),
            Step::add(A, 0),
            Step::Close(A),
            Step::remove(A, 0),
            Step::Forget(A),
            Step::Device(A, &[]),
            Step::add(A, 0),
        ],
        differences: &[AUTOCLEAR],
    },
    Case {
        name: "two disks of a guest, one of which is removed",
        steps: &[
            IMAGE,
            SECOND,
            Step::Device(A, &[]),
            Step::Device(B, &[("params", "$D/b.img")]),
            Step::add(A, 0),
            Step::add(B, 0),
            Step::Close(A),
            Step::remove(A, 0),
        ],
        differences: &[AUTOCLEAR, DISCONNECTED],
    },
    Case {
        name: "a failed add is tried again",
        steps: &[
            Step::Sh("ln -s a.img $D/link"),
            Step::Device(A, &[("params", "$D/link")]),
            Step::add(A, 1),
            IMAGE,
            Step::add(A, 0),
        ],
        differences: &[
            AUTOCLEAR,
            Difference {
                original: &["* connected when it had: "],
                ours: &[],
                because: "the original reports what is not there as connected",
            },
        ],
    },
    Case {
        name: "a word that is no action",
        steps: &[IMAGE, Step::Device(A, &[]), Step::Run(A, "online", 1)],
        differences: &[USAGE],
    },
];
