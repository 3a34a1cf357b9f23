//! The original scripts and ours, side by side on the real xenstored and the real kernel: [`block`], [`dummy`],
//! [`bridge`] and [`routed`] are tables of cases, with what is allowed to differ and why. [`faults`] are those of the
//! originals that are not copied, and [`documented`] keeps `docs/scripts.md` true.

mod block;
mod bridge;
mod documented;
mod dummy;
mod faults;
mod routed;

use anyhow::Result;
use xenplug_tests::differential::{Case, Lab, compare_all};

/// The tables, by the script they are about.
const TABLES: &[(&str, &[Case])] = &[
    ("block", block::CASES),
    ("block-dummy", dummy::CASES),
    ("vif-bridge", bridge::CASES),
    ("vif-nat", routed::NAT_CASES),
    ("vif-route", routed::ROUTE_CASES),
];

#[test]
fn block_does_what_the_original_does_but_for_what_its_table_lists() -> Result<()> {
    compare_all(&Lab::new()?, block::CASES)
}

#[test]
fn vif_bridge_does_what_the_original_does_but_for_what_its_table_lists() -> Result<()> {
    compare_all(&Lab::new()?, bridge::CASES)
}

#[test]
fn block_dummy_does_what_the_original_does_but_for_what_its_table_lists() -> Result<()> {
    compare_all(&Lab::new()?, dummy::CASES)
}

#[test]
fn vif_route_does_what_the_original_does_but_for_what_its_table_lists() -> Result<()> {
    compare_all(&Lab::new()?, routed::ROUTE_CASES)
}

#[test]
fn vif_nat_does_what_the_original_does_but_for_what_its_table_lists() -> Result<()> {
    compare_all(&Lab::new()?, routed::NAT_CASES)
}
