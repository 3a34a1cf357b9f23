//! Handlers that misbehave. `cargo xtask components` builds one component of each, `target/plugins/guests/NAME.wasm`.
//!
//! `examples/` holds those that Rust can express, `wat/` those that break the canonical ABI or run code when they are
//! instantiated. Each one describes itself as a handler that replaces the script `block` for a `vbd`.

use xenplug_sdk::Description;

/// Returns the description of a guest, with its misbehaviour.
pub fn description(behaviour: &str) -> Description {
    Description::new(behaviour).kind("vbd").script("block")
}
