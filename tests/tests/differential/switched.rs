//! `vif-openvswitch`: cards on an Open vSwitch, a real one with its userspace datapath.

use xenplug_tests::{
    differential::{ABSENT, Case, Difference, Step},
    harness::Device,
};

use super::{DISCONNECTED, USAGE};

const V: Device = Device::card(3, 0);

const SWITCH: Step = Step::Switch;
const SCRIPT: (&str, &str) = ("script", "/etc/xen/scripts/vif-openvswitch");
const TAP: Step = Step::Sh("ip tuntap add vif3.0-emu mode tap");

/// A card on a bridge.
const fn on(nodes: &'static [(&'static str, &'static str)]) -> Step {
    Step::Device(V, nodes)
}

const CARD: Step = on(&[SCRIPT, ("bridge", "ovsbr0")]);

/// The port has the same columns.
const TOLD: Difference = Difference {
    original: &["ovs-vsctl: * add-port *"],
    ours: &["ovs-vsctl: * add-port *"],
    because: "the switch is told in one form, with `tag` and `trunks` always, so that it can be granted word by word",
};

const GIVEN_BACK: Difference = Difference {
    original: &["link vif3.0: MAC *"],
    ours: &[],
    because: "all is given back, the hardware address too",
};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a card on a switch",
        steps: &[SWITCH, CARD, Step::add(V, 0)],
        differences: &[TOLD],
    },
    Case {
        name: "a card with a VLAN",
        steps: &[SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0.5")]), Step::add(V, 0)],
        differences: &[TOLD],
    },
    Case {
        name: "a card with trunks",
        steps: &[SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0:6:7")]), Step::add(V, 0)],
        differences: &[TOLD],
    },
    Case {
        name: "a card with a VLAN and trunks",
        steps: &[SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0.5:6:7")]), Step::add(V, 0)],
        differences: &[TOLD],
    },
    Case {
        name: "the switch's bridge is told by the environment",
        steps: &[
            SWITCH,
            Step::Environment("bridge=ovsbr0.9"),
            on(&[SCRIPT, ("bridge", ABSENT)]),
            Step::add(V, 0),
        ],
        differences: &[TOLD],
    },
    Case {
        name: "no bridge of a switch",
        steps: &[SWITCH, on(&[SCRIPT, ("bridge", ABSENT)]), Step::add(V, 1)],
        differences: &[GIVEN_BACK],
    },
    Case {
        name: "a VLAN that is no number",
        steps: &[SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0.x")]), Step::add(V, 1)],
        differences: &[GIVEN_BACK],
    },
    Case {
        name: "a VLAN that is too large",
        steps: &[SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0.5000")]), Step::add(V, 1)],
        differences: &[
            GIVEN_BACK,
            Difference {
                original: &["ovs-vsctl: *tag=5000*"],
                ours: &[],
                because: "what cannot be is not asked of the switch",
            },
        ],
    },
    Case {
        name: "a bridge that the switch does not have",
        steps: &[SWITCH, on(&[SCRIPT, ("bridge", "ovsbr7")]), Step::add(V, 1)],
        differences: &[
            TOLD,
            GIVEN_BACK,
            Difference {
                original: &[],
                ours: &["ovs-vsctl: --timeout=30 -- --if-exists del-port vif3.0"],
                because: "a call that failed may have done a part of its work, which is undone",
            },
        ],
    },
    Case {
        name: "a bridge of the switch that is not granted",
        steps: &[
            SWITCH,
            Step::Sh("$H/ovs-vsctl add-br other0 -- set bridge other0 datapath_type=netdev"),
            on(&[SCRIPT, ("bridge", "other0")]),
            Step::add(V, 0),
        ],
        differences: &[Difference {
            original: &[
                "link vif3.0: MAC *",
                "link vif3.0: up",
                "node vif/3/0/hotplug-status = connected",
                "ovs-vsctl: * add-port other0 *",
                "run 1, online type_if=vif: exit 0",
                "* connected when it had: ",
            ],
            ours: &[
                "node vif/3/0/hotplug-error = <text>",
                "node vif/3/0/hotplug-status = error",
                "run 1, online type_if=vif: exit 1",
            ],
            because: "what the operator did not grant is refused",
        }],
    },
    Case {
        name: "no ovs-vsctl",
        steps: &[CARD, Step::add(V, 1)],
        differences: &[GIVEN_BACK],
    },
    Case {
        name: "a vifname and an mtu on a switch",
        steps: &[
            SWITCH,
            on(&[SCRIPT, ("bridge", "ovsbr0"), ("vifname", "web"), ("mtu", "1400")]),
            Step::add(V, 0),
        ],
        differences: &[
            TOLD,
            Difference {
                original: &["link ovsbr0: MTU 1500", "link web: MTU 1500"],
                ours: &[
                    "link ovsbr0: MTU 1400",
                    "link web: MTU 1400",
                    "node 3/device/vif/0/mtu = 1400",
                ],
                because: "an MTU that the card asks for is set and told to the guest: the original leaves it out",
            },
        ],
    },
    Case {
        name: "a guest's name that has a space",
        steps: &[
            SWITCH,
            CARD,
            Step::WriteAt("/vm/00000001-0000-4000-8000-000000000003/name", "a b"),
            Step::WriteAt("/local/domain/3/name", "a b"),
            Step::add(V, 1),
        ],
        differences: &[
            TOLD,
            Difference {
                original: &[
                    "node vif/3/0/hotplug-error = <text>",
                    "node vif/3/0/hotplug-status = error",
                    "run 1, online type_if=vif: exit 1",
                ],
                ours: &[
                    "link vif3.0: up",
                    "node vif/3/0/hotplug-status = connected",
                    "port vif3.0: *",
                    "run 1, online type_if=vif: exit 0",
                    "* connected when it had: ",
                ],
                because: "a fault: the original splits the name at the space",
            },
        ],
    },
    Case {
        name: "online twice on a switch",
        steps: &[SWITCH, CARD, Step::add(V, 0), Step::add(V, 0)],
        differences: &[
            TOLD,
            Difference {
                original: &["* connected when it had:  x 2"],
                ours: &["* connected when it had: "],
                because: "the second time there is nothing to do",
            },
        ],
    },
    Case {
        name: "online and offline on a switch",
        steps: &[SWITCH, CARD, Step::add(V, 0), Step::Close(V), Step::remove(V, 0)],
        differences: &[TOLD, GIVEN_BACK, DISCONNECTED],
    },
    Case {
        name: "offline twice on a switch",
        steps: &[
            SWITCH,
            CARD,
            Step::add(V, 0),
            Step::Close(V),
            Step::remove(V, 0),
            Step::remove(V, 0),
        ],
        differences: &[
            TOLD,
            GIVEN_BACK,
            DISCONNECTED,
            Difference {
                original: &["ovs-vsctl: * del-port vif3.0 x 2"],
                ours: &["ovs-vsctl: * del-port vif3.0"],
                because: "the second time there is nothing to do",
            },
        ],
    },
    Case {
        name: "a tap on a switch, added and removed",
        steps: &[
            SWITCH,
            TAP,
            CARD,
            Step::add(V, 0),
            Step::Run(V, "add type_if=tap", 0),
            Step::Run(V, "remove type_if=tap", 0),
        ],
        differences: &[
            TOLD,
            Difference {
                original: &["link vif3.0-emu: MAC *"],
                ours: &[],
                because: "all is given back, the hardware address too",
            },
        ],
    },
    Case {
        name: "a word that is no action of a switch's",
        steps: &[CARD, Step::Run(V, "change type_if=vif", 1)],
        differences: &[USAGE],
    },
];
