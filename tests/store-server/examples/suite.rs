//! Runs the suite against the store that `XENSTORED_PATH` names, as domain 0:
//! `cargo run -p xenplug-store-server --example suite`. Not for a store that is in use.

use xenplug_store_server::suite;
use xenplug_xenstore::Endpoint;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    suite::every_case(Endpoint::from_env()).await;
}
