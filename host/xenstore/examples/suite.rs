//! Runs the suite against the store that `XENSTORED_PATH` names, as domain 0:
//! `cargo run --features suite --example suite`. Not for a store that is in use.

use xenplug_xenstore::{Endpoint, suite};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    suite::every_case(Endpoint::from_env()).await;
}
