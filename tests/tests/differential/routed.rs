//! `vif-route` and `vif-nat`: vifs without a bridge.

use xenplug_tests::{
    cases,
    differential::{
        ABSENT, Case, Difference, Step,
        table::{add, close, device, differs, environment, remove, run, sh},
    },
    harness::Device,
};

const V: Device = Device::vif(3, 0);
const W: Device = Device::vif(3, 1);
const X: Device = Device::vif(300, 2);

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

/// Returns the difference that the original attaches a vif, and the daemon refuses it.
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

pub(crate) const ROUTE_CASES: &[Case] = cases! {
    "a routed vif": [UPLINK, device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]), add(V, 0)];
    "several addresses and a network": [
        UPLINK, device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2 10.0.0.3 10.1.0.0/24")]), add(V, 0)
    ];
    "no address": [UPLINK, device(V, &[ROUTE, NO_BRIDGE]), add(V, 0)];
    "netdev from the environment": [
        UPLINK, SECOND, environment("netdev=eth1"), device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]), add(V, 0)
    ];
    "netdev from the arguments wins over the environment": [
        UPLINK, SECOND, environment("netdev=eth0"), device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]),
        run(V, "online type_if=vif netdev=eth1", 0)
    ];
    "no uplink": [device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]), add(V, 1)];
    "an uplink without an address": [
        sh("ip link add eth0 type veth peer name world; ip link set eth0 up"),
        device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]), add(V, 1)
    ];
    "a routed vif with a vifname": [
        UPLINK, device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2"), ("vifname", "web")]), add(V, 0)
    ];
    "an address that is none": [UPLINK, device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0")]), add(V, 0)] => [
        refused("what makes no sense is told: `ip route` takes `10.0.0` for 10.0.0.0")
    ];
    "an address that is not granted": [UPLINK, device(V, &[ROUTE, NO_BRIDGE, ("ip", "172.16.0.2")]), add(V, 0)] => [
        refused("what the operator did not grant is refused")
    ];
    "a routed vif, online twice": [
        UPLINK, device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]), add(V, 0), add(V, 1)
    ] => [
        differs(
            &[
                "node vif/3/0/hotplug-error = <text>", "node vif/3/0/hotplug-status = error",
                "run 2, online type_if=vif: exit 1"
            ],
            &["node vif/3/0/hotplug-status = connected", "run 2, online type_if=vif: exit 0"],
            "a fault: the routes are there already, and a vif that works is reported as broken",
        ),
    ];
    "a routed vif, online and offline": [
        UPLINK, device(V, &[ROUTE, NO_BRIDGE, ("ip", "10.0.0.2")]), add(V, 0), close(V), remove(V, 0)
    ] => [
        differs(
            &[
                "link vif3.0: address *", "link vif3.0: proxy_arp", "link vif3.0: up",
                "node vif/3/0/hotplug-status = connected"
            ],
            &["node vif/3/0/hotplug-status = disconnected"],
            "all is given back; the original counts on `ifdown`, which knows nothing of the vif, and on the link to \
             go",
        ),
    ];
};

pub(crate) const NAT_CASES: &[Case] = cases! {
    "a vif behind address translation": [device(V, &[NAT, NO_BRIDGE]), add(V, 0)];
    "the second vif of a guest": [device(V, &[NAT, NO_BRIDGE]), device(W, &[NAT, NO_BRIDGE]), add(V, 0), add(W, 0)];
    "a domain with a large number": [device(X, &[NAT, NO_BRIDGE]), add(X, 0)];
    "an address of its own": [device(V, &[NAT, NO_BRIDGE, ("ip", "10.5.0.7")]), add(V, 0)];
    "translated, online twice": [device(V, &[NAT, NO_BRIDGE]), add(V, 0), add(V, 0)];
    "translated, online and offline": [device(V, &[NAT, NO_BRIDGE]), add(V, 0), close(V), remove(V, 0)] => [
        differs(
            &["link vif3.0: address *", "link vif3.0: proxy_arp", "node vif/3/0/hotplug-status = connected"],
            &["node vif/3/0/hotplug-status = disconnected"],
            "all is given back; the original takes the link down and counts on it to go",
        ),
    ];
    "a DHCP entry is asked for, and no dhcpd is installed": [
        device(V, &[NAT, NO_BRIDGE]),
        run(V, "online type_if=vif dhcp=yes", 1),
    ] => [
        differs(
            &["node vif/3/0/hotplug-status = ", "run 1, online type_if=vif dhcp=yes: exit 1"],
            &[
                "link vif3.0: address *", "link vif3.0: proxy_arp", "link vif3.0: up",
                "node vif/3/0/hotplug-status = connected", "route dst 10.0.3.1 *",
                "run 1, online type_if=vif dhcp=yes: exit 0", "* connected when it had: "
            ],
            "DHCP entries are not written: a hook does that (`examples/hooks/dnsmasq.hook`)",
        ),
    ];
    "no handle": [device(V, &[NAT, NO_BRIDGE, ("handle", ABSENT)]), add(V, 1)] => [
        differs(
            &[
                "node vif/3/0/hotplug-error = <text>", "node vif/3/0/hotplug-status = error",
                "run 1, online type_if=vif: exit 1"
            ],
            &[
                "link vif3.0: address *", "link vif3.0: proxy_arp", "link vif3.0: up",
                "node vif/3/0/hotplug-status = connected", "route dst 10.0.3.1 *", "run 1, online type_if=vif: exit 0",
                "* connected when it had: "
            ],
            "libxl always writes `handle`; without it the number of the device serves",
        ),
    ];
};
