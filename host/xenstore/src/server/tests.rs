//! Tests of the server: the suite, and what takes an unprivileged domain.

use super::*;
use crate::{Endpoint, suite};

#[tokio::test]
async fn it_does_what_every_store_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let server = Server::bind(&path, Options::default()).unwrap();
    suite::every_case(Endpoint::Socket(path)).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    // What it starts with, and /local/domain/0.
    assert_eq!(
        server.stats(),
        Stats {
            nodes: 3 + 3,
            ..Stats::default()
        }
    );
}
