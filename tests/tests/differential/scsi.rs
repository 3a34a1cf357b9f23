//! `vscsi`: SCSI devices, which need nothing.

use xenplug_tests::{
    differential::{Case, Difference, Step},
    harness::Device,
};

use super::DISCONNECTED;

const S: Device = Device::scsi(3);

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a SCSI device",
        steps: &[Step::Device(S, &[]), Step::add(S, 0)],
        differences: &[],
    },
    Case {
        name: "a SCSI device, added twice",
        steps: &[Step::Device(S, &[]), Step::add(S, 0), Step::add(S, 0)],
        differences: &[Difference {
            original: &["* connected when it had:  x 2"],
            ours: &["* connected when it had: "],
            because: "the second time there is nothing to do",
        }],
    },
    Case {
        name: "a SCSI device, added and removed",
        steps: &[
            Step::Device(S, &[]),
            Step::add(S, 0),
            Step::Close(S),
            Step::remove(S, 0),
        ],
        differences: &[DISCONNECTED],
    },
    Case {
        name: "a SCSI device, removed without having been added",
        steps: &[Step::Device(S, &[]), Step::remove(S, 0)],
        differences: &[],
    },
    Case {
        name: "a word that is no action of a SCSI device's",
        steps: &[Step::Device(S, &[]), Step::Run(S, "change", 0)],
        differences: &[Difference {
            original: &["run 1, *: exit 0"],
            ours: &["run 1, *: exit 2"],
            because: "the exit code is 2 where it was not run as a script is",
        }],
    },
];
