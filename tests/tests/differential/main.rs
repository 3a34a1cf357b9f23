//! Original scripts and daemon side by side, on the real xenstored and the real kernel: [`block`], [`dummy`], [`tap`],
//! [`iscsi`], [`nbd`], [`scsi`], [`bridge`], [`routed`] and [`switched`] are tables of cases, with the allowed
//! differences and their reasons. [`faults`] has the known faults of the originals, and [`documented`] checks
//! `docs/scripts.md`.

mod block;
mod bridge;
mod documented;
mod dummy;
mod faults;
mod iscsi;
mod nbd;
mod routed;
mod scsi;
mod switched;
mod tap;

use anyhow::Result;
use xenplug_tests::{
    differential::{Case, Difference, Lab, compare_all},
    loud::say,
};

/// Tables of cases by script.
const TABLES: &[(&str, &[Case])] = &[
    ("`block`", block::CASES),
    ("`block-dummy`", dummy::CASES),
    ("`block-iscsi`", iscsi::CASES),
    ("`block-nbd`", nbd::CASES),
    ("`block-tap`", tap::CASES),
    ("`block-tap` of Xen 4.17 and 4.18", tap::OLD_CASES),
    ("`vif-bridge`", bridge::CASES),
    ("`vif-nat`", routed::NAT_CASES),
    ("`vif-openvswitch`", switched::CASES),
    ("`vif-route`", routed::ROUTE_CASES),
    ("`vscsi`", scsi::CASES),
];

/// Difference after both have detached the device.
const DISCONNECTED: Difference = Difference {
    original: &["node */hotplug-status = connected"],
    ours: &["node */hotplug-status = disconnected"],
    because: "`hotplug-status` ends as `disconnected`, so that who looks at the store sees that all was taken down",
};

const USAGE: Difference = Difference {
    original: &["run 1, *: exit 1"],
    ours: &["run 1, *: exit 2"],
    because: "the exit code is 2 where it was not run as a script is",
};

#[test]
fn block_matches_original_except_listed_differences() -> Result<()> {
    compare_all(&Lab::new()?, block::CASES)
}

#[test]
fn vif_bridge_matches_original_except_listed_differences() -> Result<()> {
    compare_all(&Lab::new()?, bridge::CASES)
}

#[test]
fn block_dummy_matches_original_except_listed_differences() -> Result<()> {
    compare_all(&Lab::new()?, dummy::CASES)
}

#[test]
fn vif_route_matches_original_except_listed_differences() -> Result<()> {
    compare_all(&Lab::new()?, routed::ROUTE_CASES)
}

#[test]
fn vif_nat_matches_original_except_listed_differences() -> Result<()> {
    compare_all(&Lab::new()?, routed::NAT_CASES)
}

#[test]
fn block_tap_matches_original_except_listed_differences() -> Result<()> {
    say("NOTE: tap-ctl is a fake that keeps its disks: there is no tapdisk. Its calls are compared");
    let lab = Lab::new()?;
    // Xen 4.19 rewrote the script.
    let cases = if lab.root().version() < 13 {
        tap::OLD_CASES
    } else {
        tap::CASES
    };
    compare_all(&lab, cases)
}

#[test]
fn block_iscsi_matches_original_except_listed_differences() -> Result<()> {
    say("NOTE: iscsiadm is a fake that keeps its sessions: this kernel has no iSCSI. Its calls are compared");
    compare_all(&Lab::new()?, iscsi::CASES)
}

#[test]
fn block_nbd_matches_original_except_listed_differences() -> Result<()> {
    say("NOTE: nbd-client is a fake that keeps its connections: this kernel has no nbd. Its calls are compared");
    compare_all(&Lab::new()?, nbd::CASES)
}

#[test]
fn vscsi_matches_original_except_listed_differences() -> Result<()> {
    compare_all(&Lab::new()?, scsi::CASES)
}

#[test]
fn vif_openvswitch_matches_original_except_listed() -> Result<()> {
    compare_all(&Lab::new()?, switched::CASES)
}
