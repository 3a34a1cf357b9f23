//! Configuration tables of plugins that the standard configuration lacks, with the grants of an operator.

use std::path::Path;

use super::{Helper, rules};

/// Tables of `vif-route` and `vif-nat`, for guests in 10.0.0.0/8 and 2001:db8::/32 behind `eth*`.
pub const ROUTED: &str = r#"
[plugin.vif-route]
component = "vif-route.wasm"
kinds = ["vif"]
scripts = ["vif-route"]
[plugin.vif-route.grant]
uplinks = ["eth*"]
routes = ["10.0.0.0/8", "2001:db8::/32"]
firewall = true

[plugin.vif-nat]
component = "vif-nat.wasm"
kinds = ["vif"]
scripts = ["vif-nat"]
[plugin.vif-nat.grant]
routes = ["10.0.0.0/8"]
firewall = true
"#;

/// Table of `vscsi`, which needs no grant.
pub const VSCSI: &str = r#"
[plugin.vscsi]
component = "vscsi.wasm"
kinds = ["vscsi"]
scripts = ["vscsi"]
"#;

/// Returns the table of `vif-openvswitch` with this `ovs-vsctl`, for bridges named `ovsbr*`.
pub fn openvswitch(vsctl: &Path) -> String {
    let remove = ["--timeout=30", "--", "--if-exists", "del-port", "*"];
    let mut add = remove.to_vec();
    add.extend(["--", "add-port", "ovsbr*", "*", "tag=*", "trunks=*"]);
    add.extend(["--", "set", "interface", "*", "external-ids:*", "..."]);
    format!(
        r#"
[plugin.vif-openvswitch]
component = "vif-openvswitch.wasm"
kinds = ["vif"]
scripts = ["vif-openvswitch"]
[plugin.vif-openvswitch.grant]
bridges = []
firewall = true
guest = true
process = [{}]
"#,
        rules(vsctl, &[&add, &remove])
    )
}

/// Returns the table of `block-dummy`, for images in a directory.
pub fn block_dummy(images: &Path) -> String {
    format!(
        r#"
[plugin.block-dummy]
component = "block-dummy.wasm"
kinds = ["vbd"]
scripts = ["block-dummy"]
[plugin.block-dummy.grant]
block = [{{ path = {images:?}, access = "rw" }}]
loop = true
"#
    )
}

/// Returns the table of `block-tap`, for images in a directory, with the `tap-ctl` in the folder of helpers.
pub fn block_tap(helpers: &Path, images: &Path) -> String {
    let image = format!("*:{}/*", images.display());
    let open = ["open", "-p", "*", "-m", "*", "-a", &image];
    let read_only = [&open[..], &["-R"]].concat();
    let rules = rules(
        &helpers.join("tap-ctl"),
        &[
            &["list"],
            &["allocate"],
            &["free", "-m", "*"],
            &["spawn"],
            &["attach", "-p", "*", "-m", "*"],
            &["detach", "-p", "*", "-m", "*"],
            &["close", "-p", "*", "-m", "*"],
            &open,
            &read_only,
        ],
    );
    format!(
        r#"
[plugin.block-tap]
component = "block-tap.wasm"
kinds = ["vbd", "vbd3"]
scripts = ["block-tap"]
[plugin.block-tap.grant]
block = [{{ path = {images:?}, access = "rw" }}, {{ path = "/dev/xen/blktap-2/tapdev*", access = "rw" }}]
process = [{rules}]
"#
    )
}

/// Returns the table of `block-iscsi`, with `iscsiadm` and `multipath` in the folder of helpers.
pub fn block_iscsi(helpers: &Path) -> String {
    let iscsiadm = rules(
        &helpers.join("iscsiadm"),
        &[
            &["-m", "session"],
            &["-m", "discovery", "-t", "st", "-p", "*"],
            &["-m", "node", "--targetname", "iqn.*", "-p", "*", "--login"],
            &["-m", "node", "--targetname", "iqn.*", "-p", "*", "--logout"],
        ],
    );
    let multipath = rules(&helpers.join("multipath"), &[&["-ll", "/dev/*"]]);
    format!(
        r#"
[plugin.block-iscsi]
component = "block-iscsi.wasm"
kinds = ["vbd"]
scripts = ["block-iscsi"]
[plugin.block-iscsi.grant]
block = [{{ path = "/dev/disk/by-path/ip-*", access = "rw" }}, {{ path = "/dev/mapper", access = "rw" }}]
process = [{iscsiadm}, {multipath}]
"#
    )
}

/// Returns the table of `block-nbd`, with the `nbd-client` in the folder of helpers.
pub fn block_nbd(helpers: &Path) -> String {
    let rules = rules(
        &helpers.join("nbd-client"),
        &[
            &["-c", "/dev/nbd*"],
            &["-d", "/dev/nbd*"],
            &["*", "*", "/dev/nbd*"],
            &["*", "*", "/dev/nbd*", "-N", "*"],
        ],
    );
    format!(
        r#"
[plugin.block-nbd]
component = "block-nbd.wasm"
kinds = ["vbd"]
scripts = ["block-nbd", "block-enbd"]
[plugin.block-nbd.grant]
block = [{{ path = "/dev/nbd*", access = "rw" }}]
process = [{rules}]
[plugin.block-nbd.config]
devices = {}
"#,
        Helper::nbd_devices()
    )
}
