//! `vif-bridge`: cards on bridges.

use xenplug_tests::{
    differential::{Case, Step},
    rig::Device,
};

const V: Device = Device::card(3, 0);

const BRIDGE: Step = Step::Sh("ip link add xenbr0 type bridge; ip link set xenbr0 up");

pub(crate) const CASES: &[Case] = &[Case {
    name: "a card on a bridge",
    steps: &[BRIDGE, Step::Device(V, &[]), Step::add(V, 0)],
    differences: &[],
}];
