//! Handlers that misbehave: one example for each behaviour, built into a component of its own by `cargo xtask
//! components` as `target/plugins/guests/NAME.wasm`.
//!
//! `examples/` holds those that Rust can express, `wat/` those that break the canonical ABI or start before they are
//! called. Each one describes itself as a handler for `vbd` that stands in for `block`.

use xenplug_sdk::Description;

/// What every guest says of itself, with what it does wrong.
pub fn description(behaviour: &str) -> Description {
    Description::new(behaviour).kind("vbd").script("block")
}
