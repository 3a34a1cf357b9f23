//! `block`: disks on files and block devices.

use xenplug_tests::{
    differential::{Case, Step},
    rig::Device,
};

const A: Device = Device::disk(3, 0);

pub(crate) const CASES: &[Case] = &[Case {
    name: "an image file",
    steps: &[
        Step::Sh("truncate -s 4M $D/a.img"),
        Step::Device(A, &[]),
        Step::add(A, 0),
    ],
    differences: &[],
}];
