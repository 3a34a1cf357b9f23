//! `vif-route` and `vif-nat`: cards without a bridge.

use xenplug_tests::{
    differential::{ABSENT, Case, Difference, Step},
    harness::Device,
};

const V: Device = Device::card(3, 0);
const W: Device = Device::card(3, 1);
const X: Device = Device::card(300, 2);

const UPLINK: Step = Step::Sh(
    "ip link add eth0 type veth peer name world; ip address add 192.168.7.1/24 dev eth0; \
     ip link set eth0 up; ip link set world up",
);
const SECOND: Step = Step::Sh(
    "ip link add eth1 type veth peer name world1; ip address add 192.168.8.1/24 dev eth1; \
     ip link set eth1 up; ip link set world1 up",
);
const ROUTE: (&str, &str) = ("script", "/etc/xen/scripts/vif-route");
const NAT: (&str, &str) = ("script", "/etc/xen/scripts/vif-nat");
const NO_BRIDGE: (&str, &str) = ("bridge", ABSENT);

/// The original plugs a card that ours refuses.
const fn refused(because: &'static str) -> Difference {
    Difference {
        original: &[
            "link vif3.0: address 192.168.7.1/32",
            "link vif3.0: proxy_arp",
            "link vif3.0: up",
            "node vif/3/0/hotplug-status = connected",
            "route dst * dev vif3.0 *",
            "run 1, online type_if=vif: exit 0",
            "* connected when it had: ",
        ],
        ours: &[
            "node vif/3/0/hotplug-error = <text>",
            "node vif/3/0/hotplug-status = error",
            "run 1, online type_if=vif: exit 1",
        ],
        because,
    }
}

pub(crate) const ROUTE_CASES: &[Case] = &[
    Case {
        name: "a routed card",
        steps: &[
            UPLINK,
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "several addresses and a network",
        steps: &[
            UPLINK,
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2 10.0.0.3 10.1.0.0/24")]),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "no address",
        steps: &[UPLINK, Step::Device(V, &[ROUTE, NO_BRIDGE]), Step::add(V, 0)],
        differences: &[],
    },
    Case {
        name: "netdev from the environment",
        steps: &[
            UPLINK,
            SECOND,
            Step::Environment("netdev=eth1"),
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "netdev from the arguments wins over the environment",
        steps: &[
            UPLINK,
            SECOND,
            Step::Environment("netdev=eth0"),
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]),
            Step::Run(V, "online type_if=vif netdev=eth1", 0),
        ],
        differences: &[],
    },
    Case {
        name: "no uplink",
        steps: &[
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]),
            Step::add(V, 1),
        ],
        differences: &[],
    },
    Case {
        name: "an uplink without an address",
        steps: &[
            Step::Sh("ip link add eth0 type veth peer name world; ip link set eth0 up"),
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]),
            Step::add(V, 1),
        ],
        differences: &[],
    },
    Case {
        name: "a routed card with a vifname",
        steps: &[
            UPLINK,
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2"), ("vifname", "web")]),
            Step::add(V, 0),
        ],
        differences: &[],
    },
    Case {
        name: "an address that is none",
        steps: &[
            UPLINK,
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0")]),
            Step::add(V, 0),
        ],
        differences: &[refused(
            "what makes no sense is told: `ip route` takes `10.0.0` for 10.0.0.0",
        )],
    },
    Case {
        name: "an address that is not granted",
        steps: &[
            UPLINK,
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "172.16.0.2")]),
            Step::add(V, 0),
        ],
        differences: &[refused("what the operator did not grant is refused")],
    },
    Case {
        name: "a routed card, online twice",
        steps: &[
            UPLINK,
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]),
            Step::add(V, 0),
            Step::add(V, 1),
        ],
        differences: &[Difference {
            original: &[
                "node vif/3/0/hotplug-error = <text>",
                "node vif/3/0/hotplug-status = error",
                "run 2, online type_if=vif: exit 1",
            ],
            ours: &[
                "node vif/3/0/hotplug-status = connected",
                "run 2, online type_if=vif: exit 0",
            ],
            because: "a fault: the routes are there already, and a card that works is reported as broken",
        }],
    },
    Case {
        name: "a routed card, online and offline",
        steps: &[
            UPLINK,
            Step::Device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]),
            Step::add(V, 0),
            Step::Close(V),
            Step::remove(V, 0),
        ],
        differences: &[Difference {
            original: &[
                "link vif3.0: address *",
                "link vif3.0: proxy_arp",
                "link vif3.0: up",
                "node vif/3/0/hotplug-status = connected",
            ],
            ours: &["node vif/3/0/hotplug-status = disconnected"],
            because: "all is given back; the original counts on `ifdown`, which knows nothing of the card, and on the link to go",
        }],
    },
];

pub(crate) const NAT_CASES: &[Case] = &[
    Case {
        name: "a card behind address translation",
        steps: &[Step::Device(V, &[NAT, NO_BRIDGE]), Step::add(V, 0)],
        differences: &[],
    },
    Case {
        name: "the second card of a guest",
        steps: &[
            Step::Device(V, &[NAT, NO_BRIDGE]),
            Step::Device(W, &[NAT, NO_BRIDGE]),
            Step::add(V, 0),
            Step::add(W, 0),
        ],
        differences: &[],
    },
    Case {
        name: "a domain with a large number",
        steps: &[Step::Device(X, &[NAT, NO_BRIDGE]), Step::add(X, 0)],
        differences: &[],
    },
    Case {
        name: "an address of its own",
        steps: &[Step::Device(V, &[NAT, NO_BRIDGE, ("ip", "10.5.0.7")]), Step::add(V, 0)],
        differences: &[],
    },
    Case {
        name: "translated, online twice",
        steps: &[Step::Device(V, &[NAT, NO_BRIDGE]), Step::add(V, 0), Step::add(V, 0)],
        differences: &[],
    },
    Case {
        name: "translated, online and offline",
        steps: &[
            Step::Device(V, &[NAT, NO_BRIDGE]),
            Step::add(V, 0),
            Step::Close(V),
            Step::remove(V, 0),
        ],
        differences: &[Difference {
            original: &[
                "link vif3.0: address *",
                "link vif3.0: proxy_arp",
                "node vif/3/0/hotplug-status = connected",
            ],
            ours: &["node vif/3/0/hotplug-status = disconnected"],
            because: "all is given back; the original takes the link down and counts on it to go",
        }],
    },
    Case {
        name: "no handle",
        steps: &[Step::Device(V, &[NAT, NO_BRIDGE, ("handle", ABSENT)]), Step::add(V, 1)],
        differences: &[Difference {
            original: &[
                "node vif/3/0/hotplug-error = <text>",
                "node vif/3/0/hotplug-status = error",
                "run 1, online type_if=vif: exit 1",
            ],
            ours: &[
                "link vif3.0: address *",
                "link vif3.0: proxy_arp",
                "link vif3.0: up",
                "node vif/3/0/hotplug-status = connected",
                "route dst 10.0.3.1 *",
                "run 1, online type_if=vif: exit 0",
                "* connected when it had: ",
            ],
            because: "libxl always writes `handle`; without it the number of the device serves",
        }],
    },
];
