//! `vif-bridge`: vifs on bridges.

use xenplug_tests::{
    cases,
    differential::{
        ABSENT, Case, Difference, Step,
        table::{add, close, device, differs, environment, forget, remove, run, send, sh},
    },
    harness::Device,
};

use super::{DISCONNECTED, USAGE};

/// Vifs of guest 3, and of guest 4.
const V: Device = Device::vif(3, 0);
const W: Device = Device::vif(3, 1);
const X: Device = Device::vif(4, 0);

const BRIDGE: Step = Step::Sh("ip link add xenbr0 type bridge; ip link set xenbr0 up");
const SECOND: Step = Step::Sh("ip link add xenbr1 type bridge; ip link set xenbr1 up");
/// Hides `brctl` of the package bridge-utils, which a host need not have.
const NO_BRCTL: Step = Step::Sh("mount --bind /dev/null /usr/sbin/brctl");
const PEER: Step = Step::Peer("xenbr0", "10.0.0.1/24 fd00::1/64");
const TAP: Step = Step::Sh("ip tuntap add vif3.0-emu mode tap");
/// Set-up that the scripts expect from xend's antispoofing: packets without an allowing rule are not forwarded.
const ANTISPOOFING: Step =
    Step::ShForOriginal("sysctl -q -w net.bridge.bridge-nf-call-iptables=1; iptables -P FORWARD DROP");

const RENAMED: &str =
    "a fault: the original makes the frontend's path of the link's name, which is not vif3.0 any more";

const REFUSED: &[&str] = &[
    "node vif/3/0/hotplug-error = <text>",
    "node vif/3/0/hotplug-status = error",
    "run 1, online type_if=vif: exit 1",
];

/// Returns the difference that the original attaches a vif, and the daemon refuses it.
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

/// Difference after both have detached the vif.
const TAKEN_DOWN: Difference = Difference {
    original: &["link *: MAC *", "node */hotplug-status = connected"],
    ours: &["node */hotplug-status = disconnected"],
    because: "all is given back, the hardware address too, and `hotplug-status` ends as `disconnected`",
};

pub(crate) const CASES: &[Case] = cases! {
    "a vif on a bridge": [BRIDGE, device(V, &[]), add(V, 0)];
    "a vif of the second of two bridges": [BRIDGE, SECOND, device(V, &[("bridge", "xenbr1")]), add(V, 0)];
    "no bridge named, and there is none": [device(V, &[("bridge", ABSENT)]), add(V, 1)];
    "no bridge named, and there is one without ports": [
        NO_BRCTL, BRIDGE, device(V, &[("bridge", ABSENT)]), add(V, 1)
    ] => [
        differs(
            &[
                "node vif/3/0/hotplug-error = <text>", "node vif/3/0/hotplug-status = error",
                "run 1, online type_if=vif: exit 1"
            ],
            &[
                "link vif3.0: MAC *", "link vif3.0: port of xenbr0", "link vif3.0: up", "link xenbr0: MAC *",
                "node 3/device/vif/0/mtu = 1500", "node vif/3/0/hotplug-status = connected",
                "run 1, online type_if=vif: exit 0", "* connected when it had: mtu"
            ],
            "without brctl the original finds a bridge by its ports alone; with it, the first one, as ours",
        ),
    ];
    "no bridge named, and there is one with a port": [
        BRIDGE, sh("ip link add eth7 type veth peer name eth7p; ip link set eth7 up master xenbr0"),
        device(V, &[("bridge", ABSENT)]), add(V, 0)
    ];
    "an empty bridge": [NO_BRCTL, BRIDGE, device(V, &[("bridge", "")]), add(V, 1)];
    "a bridge that is missing": [BRIDGE, device(V, &[("bridge", "xenbr7")]), add(V, 1)];
    "a bridge that is not granted": [
        sh("ip link add lan0 type bridge; ip link set lan0 up"), device(V, &[("bridge", "lan0")]), add(V, 0)
    ] => [
        differs(
            &[
                "link lan0: MAC *", "link vif3.0: port of lan0", "link vif3.0: MAC *", "link vif3.0: up",
                "node 3/device/vif/0/mtu = 1500", "node vif/3/0/hotplug-status = connected",
                "run 1, online type_if=vif: exit 0", "* connected when it had: mtu"
            ],
            REFUSED,
            "what the operator did not grant is refused",
        ),
    ];
    "a link that is no bridge": [
        NO_BRCTL, sh("ip link add xenbr0 type veth peer name other"), device(V, &[]), add(V, 2)
    ] => [
        differs(
            &[
                "link vif3.0: MAC *", "node 3/device/vif/0/mtu = 1500", "node vif/3/0/hotplug-status = ",
                "run 1, online type_if=vif: exit 2"
            ],
            REFUSED,
            "the original fails half way, and says nothing in the store",
        ),
    ];
    "a bridge whose name is too long": [BRIDGE, device(V, &[("bridge", "xenbr0123456789012345")]), add(V, 1)];
    "a bridge whose name has a space": [BRIDGE, device(V, &[("bridge", "xenbr0 up")]), add(V, 1)];
    "xenbrN where the bridge is called ethN": [
        sh("ip link add eth4 type bridge; ip link set eth4 up"), device(V, &[("bridge", "xenbr4")]), add(V, 0)
    ];
    "xenbrN where ethN is no bridge": [
        sh("ip link add eth4 type veth peer name other"), device(V, &[("bridge", "xenbr4")]), add(V, 1)
    ];
    "a bridge that is down": [sh("ip link add xenbr0 type bridge"), device(V, &[]), add(V, 0)];
    "the bridge from the environment": [
        BRIDGE, SECOND, device(V, &[("bridge", ABSENT)]), environment("bridge=xenbr1"), add(V, 0)
    ];
    "the bridge from the arguments": [
        BRIDGE, SECOND, device(V, &[("bridge", ABSENT)]), run(V, "online type_if=vif bridge=xenbr1", 0)
    ];
    "the bridge from the store wins over the arguments": [
        BRIDGE, SECOND, device(V, &[]), run(V, "online type_if=vif bridge=xenbr1", 0)
    ];
    // MTU.
    "a bridge with another MTU": [BRIDGE, sh("ip link set xenbr0 mtu 9000"), device(V, &[]), add(V, 0)];
    "an mtu of the vif's own": [BRIDGE, device(V, &[("mtu", "1400")]), add(V, 0)];
    "an mtu larger than the bridge's": [BRIDGE, device(V, &[("mtu", "9000")]), add(V, 0)];
    "an mtu of 0": [BRIDGE, device(V, &[("mtu", "0")]), add(V, 0)] => [
        differs(
            &[],
            &["node 3/device/vif/0/mtu = 1500"],
            "0 names none, and who names none gets the bridge's, and is told",
        ),
    ];
    "an mtu that is no number": [BRIDGE, device(V, &[("mtu", "large")]), add(V, 0)] => [
        refused("what makes no sense is told, not passed over")
    ];
    "an mtu that the kernel refuses": [BRIDGE, device(V, &[("mtu", "20")]), add(V, 0)] => [
        refused("the original tells the guest an MTU that its vif does not have"),
        differs(
            &["node 3/device/vif/0/mtu = 20"],
            &[],
            "the original tells the guest an MTU that its vif does not have",
        ),
    ];
    // Names.
    "a vifname": [BRIDGE, device(V, &[("vifname", "web")]), add(V, 0)] => [
        differs(
            &[
                "node web = ", "node web/device = ", "node web/device/vif = ", "node web/device/vif/web = ",
                "node web/device/vif/web/mtu = 1500", "* connected when it had: "
            ],
            &["node 3/device/vif/0/mtu = 1500", "* connected when it had: mtu"],
            RENAMED,
        ),
    ];
    "a vifname and an mtu": [BRIDGE, device(V, &[("vifname", "web"), ("mtu", "1400")]), add(V, 0)] => [
        differs(
            &[
                "node web = ", "node web/device = ", "node web/device/vif = ", "node web/device/vif/web = ",
                "node web/device/vif/web/mtu = 1400"
            ],
            &["node 3/device/vif/0/mtu = 1400"],
            RENAMED,
        ),
    ];
    "a vifname that is taken": [
        BRIDGE, sh("ip link add web type veth peer name other"), device(V, &[("vifname", "web")]), add(V, 1)
    ];
    "a vifname that is too long": [BRIDGE, device(V, &[("vifname", "a-name-of-seventeen")]), add(V, 1)];
    "an empty vifname": [BRIDGE, device(V, &[("vifname", "")]), add(V, 0)] => [
        refused("what is there and empty is a mistake, and is told"),
        differs(&["node 3/device/vif/0/mtu = 1500"], &[], "what is there and empty is a mistake, and is told"),
    ];
    "a vifname, online and offline": [BRIDGE, device(V, &[("vifname", "web")]), add(V, 0), close(V), remove(V, 0)] => [
        differs(
            &[
                "node web = ", "node web/device = ", "node web/device/vif = ", "node web/device/vif/web = ",
                "node web/device/vif/web/mtu = 1500", "* connected when it had: "
            ],
            &["node 3/device/vif/0/mtu = 1500", "* connected when it had: mtu"],
            RENAMED,
        ),
        DISCONNECTED,
        differs(
            &["link web: MAC *", "link web: MTU 1500"],
            &["link vif3.0: MTU 1500"],
            "all is given back: the name and the hardware address are as before",
        ),
    ];
    "a vifname, online twice": [BRIDGE, device(V, &[("vifname", "web")]), add(V, 0), add(V, 1)] => [
        differs(
            &[
                "node web = ", "node web/device = ", "node web/device/vif = ", "node web/device/vif/web = ",
                "node web/device/vif/web/mtu = 1500", "* connected when it had: "
            ],
            &["node 3/device/vif/0/mtu = 1500", "* connected when it had: mtu"],
            RENAMED,
        ),
        differs(
            &[
                "node vif/3/0/hotplug-error = <text>", "node vif/3/0/hotplug-status = error",
                "run 2, online type_if=vif: exit 1"
            ],
            &["node vif/3/0/hotplug-status = connected", "run 2, online type_if=vif: exit 0"],
            "a fault: to the original the name that it gave itself is taken, and a vif that works is reported as \
             broken",
        ),
    ];
    // The link.
    "the link has addresses": [
        BRIDGE, device(V, &[]), sh("ip address add 10.9.9.9/24 dev vif3.0; ip link set vif3.0 up"), add(V, 0)
    ];
    "the link is on another bridge already": [
        NO_BRCTL, BRIDGE, SECOND, device(V, &[]), sh("ip link set vif3.0 master xenbr1"), add(V, 0)
    ];
    "the link is on the bridge already": [BRIDGE, device(V, &[]), sh("ip link set vif3.0 master xenbr0"), add(V, 0)];
    "a mac that is none": [BRIDGE, device(V, &[("mac", "no")]), add(V, 0)];
    "no mac": [BRIDGE, device(V, &[("mac", ABSENT)]), add(V, 0)];
    // Repeated and late calls.
    "online twice": [BRIDGE, device(V, &[]), add(V, 0), add(V, 0)] => [
        differs(
            &["* connected when it had: mtu x 2"],
            &["* connected when it had: mtu"],
            "the second time there is nothing to do",
        ),
    ];
    "online and offline": [BRIDGE, device(V, &[]), add(V, 0), close(V), remove(V, 0)] => [TAKEN_DOWN];
    "offline without online": [BRIDGE, device(V, &[]), close(V), remove(V, 0)];
    "offline twice": [BRIDGE, device(V, &[]), add(V, 0), close(V), remove(V, 0), remove(V, 0)] => [TAKEN_DOWN];
    "offline after the link has gone": [
        BRIDGE, device(V, &[]), add(V, 0), sh("ip link delete vif3.0"), close(V), remove(V, 0)
    ] => [DISCONNECTED];
    "offline after the bridge has gone": [
        BRIDGE, device(V, &[]), add(V, 0), sh("ip link delete xenbr0"), close(V), remove(V, 1)
    ] => [
        differs(
            &[
                "link vif3.0: MAC *", "link vif3.0: up", "node vif/3/0/hotplug-error = <text>",
                "node vif/3/0/hotplug-status = error", "run 2, offline type_if=vif: exit 1"
            ],
            &["node vif/3/0/hotplug-status = disconnected", "run 2, offline type_if=vif: exit 0"],
            "a fault: the original takes nothing down without the bridge",
        ),
    ];
    "offline after its directory has gone": [BRIDGE, device(V, &[]), add(V, 0), forget(V), remove(V, 0)] => [
        differs(
            &["link vif3.0: MAC *"],
            &[],
            "all is given back, the hardware address too, and `hotplug-status` ends as `disconnected`",
        ),
    ];
    "two vifs of a guest and one of another": [
        BRIDGE, device(V, &[]), device(W, &[]), device(X, &[]), add(V, 0), add(W, 0), add(X, 0), close(W), remove(W, 0)
    ] => [TAKEN_DOWN];
    "add and remove are not for netback's link": [
        BRIDGE, device(V, &[]), run(V, "add type_if=vif", 0), run(V, "remove type_if=vif", 0)
    ];
    "an interface that is neither vif nor tap": [BRIDGE, device(V, &[]), run(V, "online type_if=tun", 1)] => [USAGE];
    "a word that is no action": [BRIDGE, device(V, &[]), run(V, "up type_if=vif", 1)] => [USAGE];
    "through vif-setup, online and offline": [
        BRIDGE, device(V, &[]), Step::ByUdev, add(V, 0), close(V), remove(V, 0)
    ] => [TAKEN_DOWN];
    // Taps.
    "the tap of an emulated vif": [BRIDGE, device(V, &[]), add(V, 0), TAP, run(V, "add type_if=tap", 0)];
    "a tap before its vif": [BRIDGE, device(V, &[]), TAP, run(V, "add type_if=tap", 0), add(V, 0)];
    "the tap of a vif with a vifname": [
        BRIDGE, device(V, &[("vifname", "web")]), add(V, 0), TAP, run(V, "add type_if=tap", 0)
    ] => [
        differs(
            &[
                "node web = ", "node web/device = ", "node web/device/vif = ", "node web/device/vif/web = ",
                "node web/device/vif/web/mtu = 1500", "* connected when it had: "
            ],
            &["node 3/device/vif/0/mtu = 1500", "* connected when it had: mtu"],
            RENAMED,
        ),
    ];
    "the tap of a vif with an mtu": [
        BRIDGE, device(V, &[("mtu", "1400")]), add(V, 0), TAP, run(V, "add type_if=tap", 0)
    ];
    "a tap that is not there": [BRIDGE, device(V, &[]), add(V, 0), run(V, "add type_if=tap", 1)] => [
        differs(
            &[],
            &["node vif/3/0/hotplug-error = <text>"],
            "a tap that does not come is waited for, and then told in the store: the original fails at once without a \
             word",
        ),
    ];
    "a tap, added and removed": [
        BRIDGE, device(V, &[]), add(V, 0), TAP, run(V, "add type_if=tap", 0), run(V, "remove type_if=tap", 0)
    ] => [
        differs(&["link vif3.0-emu: MAC *"], &[], "all is given back: the name and the hardware address are as before"),
    ];
    "online and offline are not for a tap": [
        BRIDGE, device(V, &[]), TAP, run(V, "online type_if=tap", 0), run(V, "offline type_if=tap", 0)
    ];
    // Packets of guests.
    "packets of a guest without ip": [
        BRIDGE, PEER, ANTISPOOFING, device(V, &[]), add(V, 0), send(V, "10.0.0.2:0", "10.0.0.1:5000"),
        send(V, "10.0.0.9:0", "10.0.0.1:5000"), send(V, "[fd00::2]:0", "[fd00::1]:5000")
    ];
    "packets of a guest with an ip": [
        BRIDGE, PEER, ANTISPOOFING, device(V, &[("ip", "10.0.0.2")]), add(V, 0), send(V, "10.0.0.2:0", "10.0.0.1:5000"),
        send(V, "10.0.0.9:0", "10.0.0.1:5000")
    ];
    "packets of a guest with several addresses and a network": [
        BRIDGE, PEER, ANTISPOOFING, device(V, &[("ip", "10.0.0.2 10.0.0.16/28")]), add(V, 0),
        send(V, "10.0.0.2:0", "10.0.0.1:5000"), send(V, "10.0.0.17:0", "10.0.0.1:5000"),
        send(V, "10.0.0.33:0", "10.0.0.1:5000")
    ];
    "addresses with commas between them": [
        BRIDGE, PEER, ANTISPOOFING, device(V, &[("ip", "10.0.0.2,10.0.0.3")]), add(V, 0),
        send(V, "10.0.0.3:0", "10.0.0.1:5000"), send(V, "10.0.0.9:0", "10.0.0.1:5000")
    ];
    "a guest that asks for an address by DHCP": [
        BRIDGE, PEER, ANTISPOOFING, device(V, &[("ip", "10.0.0.2")]), add(V, 0), send(V, "10.0.0.2:68", "10.0.0.1:67")
    ];
    "IPv6 of a guest with an IPv4 address": [
        BRIDGE, PEER, ANTISPOOFING, device(V, &[("ip", "10.0.0.2")]), add(V, 0),
        send(V, "[fd00::9]:0", "[fd00::1]:5000")
    ] => [
        differs(
            &["packet from [fd00::9]:0 to * arrives"],
            &["packet from [fd00::9]:0 to * is dropped"],
            "the original restricts IPv4 alone; ours lets nothing else through once `ip` names anything",
        ),
    ];
    "a guest with an IPv6 address": [
        BRIDGE, PEER, ANTISPOOFING, device(V, &[("ip", "fd00::2")]), add(V, 0),
        send(V, "[fd00::2]:0", "[fd00::1]:5000"), send(V, "[fd00::9]:0", "[fd00::1]:5000")
    ] => [
        differs(
            &["packet from [fd00::9]:0 to * arrives"],
            &["packet from [fd00::9]:0 to * is dropped"],
            "the original restricts IPv4 alone; ours lets nothing else through once `ip` names anything",
        ),
    ];
    "an ip that is none": [
        BRIDGE, PEER, ANTISPOOFING, device(V, &[("ip", "10.0.0")]), add(V, 0), send(V, "10.0.0.9:0", "10.0.0.1:5000")
    ] => [
        differs(
            &[
                "link vif3.0: MAC *", "link vif3.0: port of xenbr0", "link vif3.0: up",
                "node 3/device/vif/0/mtu = 1500", "node vif/3/0/hotplug-status = connected",
                "run 1, online type_if=vif: exit 0", "* connected when it had: mtu"
            ],
            REFUSED,
            "a restriction that was asked for is never left out: the original goes on without its rules",
        ),
    ];
    "packets after a vif came and went, and came again with another ip": [
        BRIDGE, PEER, ANTISPOOFING, device(V, &[("ip", "10.0.0.2")]), add(V, 0), close(V), remove(V, 0), forget(V),
        device(V, &[("ip", "10.0.0.3")]), add(V, 0), send(V, "10.0.0.3:0", "10.0.0.1:5000"),
        send(V, "10.0.0.2:0", "10.0.0.1:5000")
    ];
    "a network that forwards nothing that no rule allows": [
        BRIDGE, PEER, sh("sysctl -q -w net.bridge.bridge-nf-call-iptables=1; iptables -P FORWARD DROP"), device(V, &[]),
        add(V, 0), send(V, "10.0.0.2:0", "10.0.0.1:5000")
    ] => [
        differs(
            &["packet from * arrives"],
            &["packet from * is dropped"],
            "ours restricts what a guest sends, and makes no exception from a policy of the operator's; nor does \
             Debian's original, where the rules are switched off",
        ),
    ];
};
