//! `vscsi`: SCSI devices, which need no resources of the host.

use xenplug_tests::{
    cases,
    differential::{
        Case,
        table::{add, close, device, differs, remove, run},
    },
    harness::Device,
};

use super::DISCONNECTED;

const S: Device = Device::scsi(3);

pub(crate) const CASES: &[Case] = cases! {
    "a SCSI device": [device(S, &[]), add(S, 0)];
    "a SCSI device, added twice": [device(S, &[]), add(S, 0), add(S, 0)] => [
        differs(
            &["* connected when it had:  x 2"],
            &["* connected when it had: "],
            "the second time there is nothing to do",
        ),
    ];
    "a SCSI device, added and removed": [device(S, &[]), add(S, 0), close(S), remove(S, 0)] => [DISCONNECTED];
    "a SCSI device, removed without having been added": [device(S, &[]), remove(S, 0)];
    "a word that is no action of a SCSI device's": [device(S, &[]), run(S, "change", 0)] => [
        differs(&["run 1, *: exit 0"], &["run 1, *: exit 2"], "the exit code is 2 where it was not run as a script is"),
    ];
};
