//! `vif-bridge`: cards on bridges.

use xenplug_tests::{
    differential::{ABSENT, Case, Difference, Step},
    harness::Device,
};

use super::{DISCONNECTED, USAGE};

/// Guest 3's cards, and guest 4's.
const V: Device = Device::card(3, 0);
const W: Device = Device::card(3, 1);
const X: Device = Device::card(4, 0);

const BRIDGE: Step = Step::Sh("ip link add xenbr0 type bridge; ip link set xenbr0 up");
const SECOND: Step = Step::Sh("ip link add xenbr1 type bridge; ip link set xenbr1 up");
const PEER: Step = Step::Peer("xenbr0", "10.0.0.1/24 fd00::1/64");
const TAP: Step = Step::Sh("ip tuntap add vif3.0-emu mode tap");
/// What xend's antispoofing did once for all guests, and the scripts count on: what no rule allows is not forwarded.
const ANTISPOOFING: Step =
    Step::ShForOriginal("sysctl -q -w net.bridge.bridge-nf-call-iptables=1; iptables -P FORWARD DROP");

const RENAMED: &str =
    "a fault: the original makes the frontend's path of the link's name, which is not vif3.0 any more";

const REFUSED: &[&str] = &[
    "node vif/3/0/hotplug-error = <text>",
    "node vif/3/0/hotplug-status = error",
    "run 1, online type_if=vif: exit 1",
];

/// The original plugs a card that ours refuses.
const fn refused(because: &'static str) -> Difference {
    Difference {
        original: &[
            "link vif3.0: MAC *",
            "link vif3.0: port of xenbr0",
            "link vif3.0: up",
            "link xenbr0: MAC *",
            "node vif/3/0/hotplug-status = connected",
            "run 1, online type_if=vif: exit 0",
            "* connected when it had: mtu",
        ],
        ours: REFUSED,
        because,
    }
}

/// Both have taken the card down.
const TAKEN_DOWN: Difference = Difference {
    original: &["link *: MAC *", "node */hotplug-status = connected"],
    ours: &["node */hotplug-status = disconnected"],
    because: "all is given back, the hardware address too, and `hotplug-status` ends as `disconnected`",
};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a card on a bridge",
        steps: &[BRIDGE, Step::Device(V, &[]), Step::add(V, 0)],
        differences: &[],
    },
    Case {
        name: "a card of the second of two bridges",
        steps: &[
            BRIDGE,
            SECOND,
            Step::Device(V, &[("bridge", "xenbr1")]),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "no bridge named, and there is none",
        steps: &[Step::Device(V, &[("bridge", ABSENT)]), Step::add(V, 1)],
        differences: &[],
    },
    Case {
        name: "no bridge named, and there is one without ports",
        steps: &[BRIDGE, Step::Device(V, &[("bridge", ABSENT)]), Step::add(V, 1)],
        differences: &[Difference {
            original: &[
                "node vif/3/0/hotplug-error = <text>",
                "node vif/3/0/hotplug-status = error",
                "run 1, online type_if=vif: exit 1",
            ],
            ours: &[
                "link vif3.0: MAC *",
                "link vif3.0: port of xenbr0",
                "link vif3.0: up",
                "link xenbr0: MAC *",
                "node 3/device/vif/0/mtu = 1500",
                "node vif/3/0/hotplug-status = connected",
                "run 1, online type_if=vif: exit 0",
                "* connected when it had: mtu",
            ],
            because: "without brctl the original finds a bridge by its ports alone; with it, the first one, as ours",
        }],
    },
    Case {
        name: "no bridge named, and there is one with a port",
        steps: &[
            BRIDGE,
            Step::Sh("ip link add eth7 type veth peer name eth7p; ip link set eth7 up master xenbr0"),
            Step::Device(V, &[("bridge", ABSENT)]),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "an empty bridge",
        steps: &[BRIDGE, Step::Device(V, &[("bridge", "")]), Step::add(V, 1)],
        differences: &[],
    },
    Case {
        name: "a bridge that is missing",
        steps: &[BRIDGE, Step::Device(V, &[("bridge", "xenbr7")]), Step::add(V, 1)],
        differences: &[],
    },
    Case {
        name: "a bridge that is not granted",
        steps: &[
            Step::Sh("ip link add lan0 type bridge; ip link set lan0 up"),
            Step::Device(V, &[("bridge", "lan0")]),
            Step::add(V, 0),
        ],
        differences: &[Difference {
            original: &[
                "link lan0: MAC *",
                "link vif3.0: port of lan0",
                "link vif3.0: MAC *",
                "link vif3.0: up",
                "node 3/device/vif/0/mtu = 1500",
                "node vif/3/0/hotplug-status = connected",
                "run 1, online type_if=vif: exit 0",
                "* connected when it had: mtu",
            ],
            ours: REFUSED,
            because: "what the operator did not grant is refused",
        }],
    },
    Case {
        name: "a link that is no bridge",
        steps: &[
            Step::Sh("ip link add xenbr0 type veth peer name other"),
            Step::Device(V, &[]),
            Step::add(V, 2),
        ],
        differences: &[Difference {
            original: &[
                "link vif3.0: MAC *",
                "node 3/device/vif/0/mtu = 1500",
                "node vif/3/0/hotplug-status = ",
                "run 1, online type_if=vif: exit 2",
            ],
            ours: REFUSED,
            because: "the original fails half way, and says nothing in the store",
        }],
    },
    Case {
        name: "a bridge whose name is too long",
        steps: &[
            BRIDGE,
            Step::Device(V, &[("bridge", "xenbr0123456789012345")]),
            Step::add(V, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a bridge whose name has a space",
        steps: &[BRIDGE, Step::Device(V, &[("bridge", "xenbr0 up")]), Step::add(V, 1)],
        differences: &[],
    },
    Case {
        name: "xenbrN where the bridge is called ethN",
        steps: &[
            Step::Sh("ip link add eth4 type bridge; ip link set eth4 up"),
            Step::Device(V, &[("bridge", "xenbr4")]),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "xenbrN where ethN is no bridge",
        steps: &[
            Step::Sh("ip link add eth4 type veth peer name other"),
            Step::Device(V, &[("bridge", "xenbr4")]),
            Step::add(V, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a bridge that is down",
        steps: &[
            Step::Sh("ip link add xenbr0 type bridge"),
            Step::Device(V, &[]),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "the bridge from the environment",
        steps: &[
            BRIDGE,
            SECOND,
            Step::Device(V, &[("bridge", ABSENT)]),
            Step::Environment("bridge=xenbr1"),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "the bridge from the arguments",
        steps: &[
            BRIDGE,
            SECOND,
            Step::Device(V, &[("bridge", ABSENT)]),
            Step::Run(V, "online type_if=vif bridge=xenbr1", 0),
        ],
        differences: &[],
    },
    Case {
        name: "the bridge from the store wins over the arguments",
        steps: &[
            BRIDGE,
            SECOND,
            Step::Device(V, &[]),
            Step::Run(V, "online type_if=vif bridge=xenbr1", 0),
        ],
        differences: &[],
    },
    // MTU.
    Case {
        name: "a bridge with another MTU",
        steps: &[
            BRIDGE,
            Step::Sh("ip link set xenbr0 mtu 9000"),
            Step::Device(V, &[]),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "an mtu of the card's own",
        steps: &[BRIDGE, Step::Device(V, &[("mtu", "1400")]), Step::add(V, 0)],
        differences: &[],
    },
    Case {
        name: "an mtu larger than the bridge's",
        steps: &[BRIDGE, Step::Device(V, &[("mtu", "9000")]), Step::add(V, 0)],
        differences: &[],
    },
    Case {
        name: "an mtu of 0",
        steps: &[BRIDGE, Step::Device(V, &[("mtu", "0")]), Step::add(V, 0)],
        differences: &[Difference {
            original: &[],
            ours: &["node 3/device/vif/0/mtu = 1500"],
            because: "0 names none, and who names none gets the bridge's, and is told",
        }],
    },
    Case {
        name: "an mtu that is no number",
        steps: &[BRIDGE, Step::Device(V, &[("mtu", "large")]), Step::add(V, 0)],
        differences: &[refused("what makes no sense is told, not passed over")],
    },
    Case {
        name: "an mtu that the kernel refuses",
        steps: &[BRIDGE, Step::Device(V, &[("mtu", "20")]), Step::add(V, 0)],
        differences: &[
            refused("the original tells the guest an MTU that its card does not have"),
            Difference {
                original: &["node 3/device/vif/0/mtu = 20"],
                ours: &[],
                because: "the original tells the guest an MTU that its card does not have",
            },
        ],
    },
    // Names.
    Case {
        name: "a vifname",
        steps: &[BRIDGE, Step::Device(V, &[("vifname", "web")]), Step::add(V, 0)],
        differences: &[Difference {
            original: &[
                "node web = ",
                "node web/device = ",
                "node web/device/vif = ",
                "node web/device/vif/web = ",
                "node web/device/vif/web/mtu = 1500",
                "* connected when it had: ",
            ],
            ours: &["node 3/device/vif/0/mtu = 1500", "* connected when it had: mtu"],
            because: RENAMED,
        }],
    },
    Case {
        name: "a vifname and an mtu",
        steps: &[
            BRIDGE,
            Step::Device(V, &[("vifname", "web"), ("mtu", "1400")]),
            Step::add(V, 0),
        ],
        differences: &[Difference {
            original: &[
                "node web = ",
                "node web/device = ",
                "node web/device/vif = ",
                "node web/device/vif/web = ",
                "node web/device/vif/web/mtu = 1400",
            ],
            ours: &["node 3/device/vif/0/mtu = 1400"],
            because: RENAMED,
        }],
    },
    Case {
        name: "a vifname that is taken",
        steps: &[
            BRIDGE,
            Step::Sh("ip link add web type veth peer name other"),
            Step::Device(V, &[("vifname", "web")]),
            Step::add(V, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a vifname that is too long",
        steps: &[
            BRIDGE,
            Step::Device(V, &[("vifname", "a-name-of-seventeen")]),
            Step::add(V, 1),
        ],
        differences: &[],
    },
    Case {
        name: "an empty vifname",
        steps: &[BRIDGE, Step::Device(V, &[("vifname", "")]), Step::add(V, 0)],
        differences: &[
            refused("what is there and empty is a mistake, and is told"),
            Difference {
                original: &["node 3/device/vif/0/mtu = 1500"],
                ours: &[],
                because: "what is there and empty is a mistake, and is told",
            },
        ],
    },
    Case {
        name: "a vifname, online and offline",
        steps: &[
            BRIDGE,
            Step::Device(V, &[("vifname", "web")]),
            Step::add(V, 0),
            Step::Close(V),
            Step::remove(V, 0),
        ],
        differences: &[
            Difference {
                original: &[
                    "node web = ",
                    "node web/device = ",
                    "node web/device/vif = ",
                    "node web/device/vif/web = ",
                    "node web/device/vif/web/mtu = 1500",
                    "* connected when it had: ",
                ],
                ours: &["node 3/device/vif/0/mtu = 1500", "* connected when it had: mtu"],
                because: RENAMED,
            },
            DISCONNECTED,
            Difference {
                original: &["link web: MAC *", "link web: MTU 1500"],
                ours: &["link vif3.0: MTU 1500"],
                because: "all is given back: the name and the hardware address are as before",
            },
        ],
    },
    Case {
        name: "a vifname, online twice",
        steps: &[
            BRIDGE,
            Step::Device(V, &[("vifname", "web")]),
            Step::add(V, 0),
            Step::add(V, 1),
        ],
        differences: &[
            Difference {
                original: &[
                    "node web = ",
                    "node web/device = ",
                    "node web/device/vif = ",
                    "node web/device/vif/web = ",
                    "node web/device/vif/web/mtu = 1500",
                    "* connected when it had: ",
                ],
                ours: &["node 3/device/vif/0/mtu = 1500", "* connected when it had: mtu"],
                because: RENAMED,
            },
            Difference {
                original: &[
                    "node vif/3/0/hotplug-error = <text>",
                    "node vif/3/0/hotplug-status = error",
                    "run 2, online type_if=vif: exit 1",
                ],
                ours: &[
                    "node vif/3/0/hotplug-status = connected",
                    "run 2, online type_if=vif: exit 0",
                ],
                because: "a fault: to the original the name that it gave itself is taken, and a card that works is reported as broken",
            },
        ],
    },
    // The link.
    Case {
        name: "the link has addresses",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::Sh("ip address add 10.9.9.9/24 dev vif3.0; ip link set vif3.0 up"),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "the link is on another bridge already",
        steps: &[
            BRIDGE,
            SECOND,
            Step::Device(V, &[]),
            Step::Sh("ip link set vif3.0 master xenbr1"),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "the link is on the bridge already",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::Sh("ip link set vif3.0 master xenbr0"),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "a mac that is none",
        steps: &[BRIDGE, Step::Device(V, &[("mac", "no")]), Step::add(V, 0)],
        differences: &[],
    },
    Case {
        name: "no mac",
        steps: &[BRIDGE, Step::Device(V, &[("mac", ABSENT)]), Step::add(V, 0)],
        differences: &[],
    },
    // Life.
    Case {
        name: "online twice",
        steps: &[BRIDGE, Step::Device(V, &[]), Step::add(V, 0), Step::add(V, 0)],
        differences: &[Difference {
            original: &["* connected when it had: mtu x 2"],
            ours: &["* connected when it had: mtu"],
            because: "the second time there is nothing to do",
        }],
    },
    Case {
        name: "online and offline",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::add(V, 0),
            Step::Close(V),
            Step::remove(V, 0),
        ],
        differences: &[TAKEN_DOWN],
    },
    Case {
        name: "offline without online",
        steps: &[BRIDGE, Step::Device(V, &[]), Step::Close(V), Step::remove(V, 0)],
        differences: &[],
    },
    Case {
        name: "offline twice",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::add(V, 0),
            Step::Close(V),
            Step::remove(V, 0),
            Step::remove(V, 0),
        ],
        differences: &[TAKEN_DOWN],
    },
    Case {
        name: "offline after the link has gone",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::add(V, 0),
            Step::Sh("ip link delete vif3.0"),
            Step::Close(V),
            Step::remove(V, 0),
        ],
        differences: &[DISCONNECTED],
    },
    Case {
        name: "offline after the bridge has gone",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::add(V, 0),
            Step::Sh("ip link delete xenbr0"),
            Step::Close(V),
            Step::remove(V, 1),
        ],
        differences: &[Difference {
            original: &[
                "link vif3.0: MAC *",
                "link vif3.0: up",
                "node vif/3/0/hotplug-error = <text>",
                "node vif/3/0/hotplug-status = error",
                "run 2, offline type_if=vif: exit 1",
            ],
            ours: &[
                "node vif/3/0/hotplug-status = disconnected",
                "run 2, offline type_if=vif: exit 0",
            ],
            because: "a fault: the original takes nothing down without the bridge",
        }],
    },
    Case {
        name: "offline after its directory has gone",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::add(V, 0),
            Step::Forget(V),
            Step::remove(V, 0),
        ],
        differences: &[Difference {
            original: &["link vif3.0: MAC *"],
            ours: &[],
            because: "all is given back, the hardware address too, and `hotplug-status` ends as `disconnected`",
        }],
    },
    Case {
        name: "two cards of a guest and one of another",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::Device(W, &[]),
            Step::Device(X, &[]),
            Step::add(V, 0),
            Step::add(W, 0),
            Step::add(X, 0),
            Step::Close(W),
            Step::remove(W, 0),
        ],
        differences: &[TAKEN_DOWN],
    },
    Case {
        name: "add and remove are not for netback's link",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::Run(V, "add type_if=vif", 0),
            Step::Run(V, "remove type_if=vif", 0),
        ],
        differences: &[],
    },
    Case {
        name: "an interface that is neither vif nor tap",
        steps: &[BRIDGE, Step::Device(V, &[]), Step::Run(V, "online type_if=tun", 1)],
        differences: &[USAGE],
    },
    Case {
        name: "a word that is no action",
        steps: &[BRIDGE, Step::Device(V, &[]), Step::Run(V, "up type_if=vif", 1)],
        differences: &[USAGE],
    },
    Case {
        name: "through vif-setup, online and offline",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::ByUdev,
            Step::add(V, 0),
            Step::Close(V),
            Step::remove(V, 0),
        ],
        differences: &[TAKEN_DOWN],
    },
    // Taps.
    Case {
        name: "the tap of an emulated card",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::add(V, 0),
            TAP,
            Step::Run(V, "add type_if=tap", 0),
        ],
        differences: &[],
    },
    Case {
        name: "a tap before its card",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            TAP,
            Step::Run(V, "add type_if=tap", 0),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "the tap of a card with a vifname",
        steps: &[
            BRIDGE,
            Step::Device(V, &[("vifname", "web")]),
            Step::add(V, 0),
            TAP,
            Step::Run(V, "add type_if=tap", 0),
        ],
        differences: &[Difference {
            original: &[
                "node web = ",
                "node web/device = ",
                "node web/device/vif = ",
                "node web/device/vif/web = ",
                "node web/device/vif/web/mtu = 1500",
                "* connected when it had: ",
            ],
            ours: &["node 3/device/vif/0/mtu = 1500", "* connected when it had: mtu"],
            because: RENAMED,
        }],
    },
    Case {
        name: "the tap of a card with an mtu",
        steps: &[
            BRIDGE,
            Step::Device(V, &[("mtu", "1400")]),
            Step::add(V, 0),
            TAP,
            Step::Run(V, "add type_if=tap", 0),
        ],
        differences: &[],
    },
    Case {
        name: "a tap that is not there",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::add(V, 0),
            Step::Run(V, "add type_if=tap", 1),
        ],
        differences: &[Difference {
            original: &[],
            ours: &["node vif/3/0/hotplug-error = <text>"],
            because: "a tap that does not come is waited for, and then told in the store: the original fails at once without a word",
        }],
    },
    Case {
        name: "a tap, added and removed",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            Step::add(V, 0),
            TAP,
            Step::Run(V, "add type_if=tap", 0),
            Step::Run(V, "remove type_if=tap", 0),
        ],
        differences: &[Difference {
            original: &["link vif3.0-emu: MAC *"],
            ours: &[],
            because: "all is given back: the name and the hardware address are as before",
        }],
    },
    Case {
        name: "online and offline are not for a tap",
        steps: &[
            BRIDGE,
            Step::Device(V, &[]),
            TAP,
            Step::Run(V, "online type_if=tap", 0),
            Step::Run(V, "offline type_if=tap", 0),
        ],
        differences: &[],
    },
    // What a guest may send.
    Case {
        name: "packets of a guest without ip",
        steps: &[
            BRIDGE,
            PEER,
            ANTISPOOFING,
            Step::Device(V, &[]),
            Step::add(V, 0),
            Step::Send(V, "10.0.0.2:0", "10.0.0.1:5000"),
            Step::Send(V, "10.0.0.9:0", "10.0.0.1:5000"),
            Step::Send(V, "[fd00::2]:0", "[fd00::1]:5000"),
        ],
        differences: &[],
    },
    Case {
        name: "packets of a guest with an ip",
        steps: &[
            BRIDGE,
            PEER,
            ANTISPOOFING,
            Step::Device(V, &[("ip", "10.0.0.2")]),
            Step::add(V, 0),
            Step::Send(V, "10.0.0.2:0", "10.0.0.1:5000"),
            Step::Send(V, "10.0.0.9:0", "10.0.0.1:5000"),
        ],
        differences: &[],
    },
    Case {
        name: "packets of a guest with several addresses and a network",
        steps: &[
            BRIDGE,
            PEER,
            ANTISPOOFING,
            Step::Device(V, &[("ip", "10.0.0.2 10.0.0.16/28")]),
            Step::add(V, 0),
            Step::Send(V, "10.0.0.2:0", "10.0.0.1:5000"),
            Step::Send(V, "10.0.0.17:0", "10.0.0.1:5000"),
            Step::Send(V, "10.0.0.33:0", "10.0.0.1:5000"),
        ],
        differences: &[],
    },
    Case {
        name: "addresses with commas between them",
        steps: &[
            BRIDGE,
            PEER,
            ANTISPOOFING,
            Step::Device(V, &[("ip", "10.0.0.2,10.0.0.3")]),
            Step::add(V, 0),
            Step::Send(V, "10.0.0.3:0", "10.0.0.1:5000"),
            Step::Send(V, "10.0.0.9:0", "10.0.0.1:5000"),
        ],
        differences: &[],
    },
    Case {
        name: "a guest that asks for an address by DHCP",
        steps: &[
            BRIDGE,
            PEER,
            ANTISPOOFING,
            Step::Device(V, &[("ip", "10.0.0.2")]),
            Step::add(V, 0),
            Step::Send(V, "10.0.0.2:68", "10.0.0.1:67"),
        ],
        differences: &[],
    },
    Case {
        name: "IPv6 of a guest with an IPv4 address",
        steps: &[
            BRIDGE,
            PEER,
            ANTISPOOFING,
            Step::Device(V, &[("ip", "10.0.0.2")]),
            Step::add(V, 0),
            Step::Send(V, "[fd00::9]:0", "[fd00::1]:5000"),
        ],
        differences: &[Difference {
            original: &["packet from [fd00::9]:0 to * arrives"],
            ours: &["packet from [fd00::9]:0 to * is dropped"],
            because: "the original restricts IPv4 alone; ours lets nothing else through once `ip` names anything",
        }],
    },
    Case {
        name: "a guest with an IPv6 address",
        steps: &[
            BRIDGE,
            PEER,
            ANTISPOOFING,
            Step::Device(V, &[("ip", "fd00::2")]),
            Step::add(V, 0),
            Step::Send(V, "[fd00::2]:0", "[fd00::1]:5000"),
            Step::Send(V, "[fd00::9]:0", "[fd00::1]:5000"),
        ],
        differences: &[Difference {
            original: &["packet from [fd00::9]:0 to * arrives"],
            ours: &["packet from [fd00::9]:0 to * is dropped"],
            because: "the original restricts IPv4 alone; ours lets nothing else through once `ip` names anything",
        }],
    },
    Case {
        name: "an ip that is none",
        steps: &[
            BRIDGE,
            PEER,
            ANTISPOOFING,
            Step::Device(V, &[("ip", "10.0.0")]),
            Step::add(V, 0),
            Step::Send(V, "10.0.0.9:0", "10.0.0.1:5000"),
        ],
        differences: &[Difference {
            original: &[
                "link vif3.0: MAC *",
                "link vif3.0: port of xenbr0",
                "link vif3.0: up",
                "node 3/device/vif/0/mtu = 1500",
                "node vif/3/0/hotplug-status = connected",
                "run 1, online type_if=vif: exit 0",
                "* connected when it had: mtu",
            ],
            ours: REFUSED,
            because: "a restriction that was asked for is never left out: the original goes on without its rules",
        }],
    },
    Case {
        name: "packets after a card came and went, and came again with another ip",
        steps: &[
            BRIDGE,
            PEER,
            ANTISPOOFING,
            Step::Device(V, &[("ip", "10.0.0.2")]),
            Step::add(V, 0),
            Step::Close(V),
            Step::remove(V, 0),
            Step::Forget(V),
            Step::Device(V, &[("ip", "10.0.0.3")]),
            Step::add(V, 0),
            Step::Send(V, "10.0.0.3:0", "10.0.0.1:5000"),
            Step::Send(V, "10.0.0.2:0", "10.0.0.1:5000"),
        ],
        differences: &[],
    },
    Case {
        name: "a network that forwards nothing that no rule allows",
        steps: &[
            BRIDGE,
            PEER,
            Step::Sh("sysctl -q -w net.bridge.bridge-nf-call-iptables=1; iptables -P FORWARD DROP"),
            Step::Device(V, &[]),
            Step::add(V, 0),
            Step::Send(V, "10.0.0.2:0", "10.0.0.1:5000"),
        ],
        differences: &[Difference {
            original: &["packet from * arrives"],
            ours: &["packet from * is dropped"],
            because: "ours restricts what a guest sends, and makes no exception from a policy of the operator's; nor does Debian's original, where the rules are switched off",
        }],
    },
];
