//! `vif-openvswitch`: vifs on an Open vSwitch, a real one with its userspace datapath.

use xenplug_tests::{
    cases,
    differential::{
        ABSENT, Case, Difference, Step,
        table::{add, close, differs, environment, remove, run, sh, write_at},
    },
    harness::Device,
};

use super::{DISCONNECTED, USAGE};

const V: Device = Device::vif(3, 0);

const SWITCH: Step = Step::Switch;
const SCRIPT: (&str, &str) = ("script", "/etc/xen/scripts/vif-openvswitch");
const TAP: Step = Step::Sh("ip tuntap add vif3.0-emu mode tap");

/// Returns the step that writes a vif on a bridge.
const fn on(nodes: &'static [(&'static str, &'static str)]) -> Step {
    Step::Device(V, nodes)
}

const VIF: Step = on(&[SCRIPT, ("bridge", "ovsbr0")]);

/// Difference in the `ovs-vsctl` calls: the port has the same columns.
const CALLS: Difference = Difference {
    original: &["ovs-vsctl: * add-port *"],
    ours: &["ovs-vsctl: * add-port *"],
    because: "the switch is told in one form, with `tag` and `trunks` always, so that it can be granted word by word",
};

const RELEASED: Difference = Difference {
    original: &["link vif3.0: MAC *"],
    ours: &[],
    because: "all is given back, the hardware address too",
};

pub(crate) const CASES: &[Case] = cases! {
    "a vif on a switch": [SWITCH, VIF, add(V, 0)] => [CALLS];
    "a vif with a VLAN": [SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0.5")]), add(V, 0)] => [CALLS];
    "a vif with trunks": [SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0:6:7")]), add(V, 0)] => [CALLS];
    "a vif with a VLAN and trunks": [SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0.5:6:7")]), add(V, 0)] => [CALLS];
    "the switch's bridge is told by the environment": [
        SWITCH, environment("bridge=ovsbr0.9"), on(&[SCRIPT, ("bridge", ABSENT)]), add(V, 0)
    ] => [CALLS];
    "no bridge of a switch": [SWITCH, on(&[SCRIPT, ("bridge", ABSENT)]), add(V, 1)] => [RELEASED];
    "a VLAN that is no number": [SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0.x")]), add(V, 1)] => [RELEASED];
    "a VLAN that is too large": [SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0.5000")]), add(V, 1)] => [
        RELEASED,
        differs(&["ovs-vsctl: *tag=5000*"], &[], "what cannot be is not asked of the switch"),
    ];
    "a bridge that the switch does not have": [SWITCH, on(&[SCRIPT, ("bridge", "ovsbr7")]), add(V, 1)] => [
        CALLS,
        RELEASED,
        differs(
            &[],
            &["ovs-vsctl: --timeout=30 -- --if-exists del-port vif3.0"],
            "a call that failed may have done a part of its work, which is undone",
        ),
    ];
    "a bridge of the switch that is not granted": [
        SWITCH, sh("$H/ovs-vsctl add-br other0 -- set bridge other0 datapath_type=netdev"),
        on(&[SCRIPT, ("bridge", "other0")]), add(V, 0)
    ] => [
        differs(
            &[
                "link vif3.0: MAC *", "link vif3.0: up", "node vif/3/0/hotplug-status = connected",
                "ovs-vsctl: * add-port other0 *", "run 1, online type_if=vif: exit 0", "* connected when it had: "
            ],
            &[
                "node vif/3/0/hotplug-error = <text>", "node vif/3/0/hotplug-status = error",
                "run 1, online type_if=vif: exit 1"
            ],
            "what the operator did not grant is refused",
        ),
    ];
    "no ovs-vsctl": [VIF, add(V, 1)] => [RELEASED];
    "a vifname and an mtu on a switch": [
        SWITCH, on(&[SCRIPT, ("bridge", "ovsbr0"), ("vifname", "web"), ("mtu", "1400")]), add(V, 0)
    ] => [
        CALLS,
        differs(
            &["link ovsbr0: MTU 1500", "link web: MTU 1500"],
            &["link ovsbr0: MTU 1400", "link web: MTU 1400", "node 3/device/vif/0/mtu = 1400"],
            "an MTU that the vif asks for is set and told to the guest: the original leaves it out",
        ),
    ];
    "a guest's name that has a space": [
        SWITCH, VIF, write_at("/vm/00000001-0000-4000-8000-000000000003/name", "a b"),
        write_at("/local/domain/3/name", "a b"), add(V, 1)
    ] => [
        CALLS,
        differs(
            &[
                "node vif/3/0/hotplug-error = <text>", "node vif/3/0/hotplug-status = error",
                "run 1, online type_if=vif: exit 1"
            ],
            &[
                "link vif3.0: up", "node vif/3/0/hotplug-status = connected", "port vif3.0: *",
                "run 1, online type_if=vif: exit 0", "* connected when it had: "
            ],
            "a fault: the original splits the name at the space",
        ),
    ];
    "online twice on a switch": [SWITCH, VIF, add(V, 0), add(V, 0)] => [
        CALLS,
        differs(
            &["* connected when it had:  x 2"],
            &["* connected when it had: "],
            "the second time there is nothing to do",
        ),
    ];
    "online and offline on a switch": [SWITCH, VIF, add(V, 0), close(V), remove(V, 0)] => [
        CALLS, RELEASED, DISCONNECTED
    ];
    "offline twice on a switch": [SWITCH, VIF, add(V, 0), close(V), remove(V, 0), remove(V, 0)] => [
        CALLS,
        RELEASED,
        DISCONNECTED,
        differs(
            &["ovs-vsctl: * del-port vif3.0 x 2"],
            &["ovs-vsctl: * del-port vif3.0"],
            "the second time there is nothing to do",
        ),
    ];
    "a tap on a switch, added and removed": [
        SWITCH, TAP, VIF, add(V, 0), run(V, "add type_if=tap", 0), run(V, "remove type_if=tap", 0)
    ] => [CALLS, differs(&["link vif3.0-emu: MAC *"], &[], "all is given back, the hardware address too")];
    "a word that is no action of a switch's": [VIF, run(V, "change type_if=vif", 1)] => [USAGE];
};
