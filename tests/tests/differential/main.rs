//! The original scripts and ours, side by side on the real xenstored and the real kernel: [`block`] and [`bridge`] are
//! tables of cases, with what is allowed to differ and why.

mod block;
mod bridge;

use anyhow::Result;
use xenplug_tests::differential::{Lab, compare_all};

#[test]
fn block_does_what_the_original_does_but_for_what_its_table_lists() -> Result<()> {
    compare_all(&Lab::new()?, block::CASES)
}

#[test]
fn vif_bridge_does_what_the_original_does_but_for_what_its_table_lists() -> Result<()> {
    compare_all(&Lab::new()?, bridge::CASES)
}
