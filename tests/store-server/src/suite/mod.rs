//! Suite of cases that every xenstore has to pass: this server and the real xenstored.
//!
//! [`every_case`] runs them all against a store, as domain 0. Each case works below a directory of its own,
//! `/xenplug-suite/<case>`, and removes it at the end. A case that fails panics.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a case fails by a panic")]

mod domains;
mod nodes;
mod raw;
mod transactions;
mod watches;

use std::{pin::Pin, time::Duration};

use tokio::task::LocalSet;

use xenplug_xenstore::{Client, Endpoint, Errno, Error, Event, Path, Watch};

/// Case: its name and its function.
type Case = (&'static str, fn(Bench) -> Pin<Box<dyn Future<Output = ()>>>);

/// Lists functions of a module as cases.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub(super) const CASES: &[super::Case] = &[$((stringify!($case), |bench| Box::pin($case(bench)))),*];
    };
}
use cases;

/// Runs every case against a store, and panics with the names of those that failed.
pub async fn every_case(endpoint: Endpoint) {
    let mut failed = Vec::new();
    for (name, case) in [
        nodes::CASES,
        transactions::CASES,
        watches::CASES,
        domains::CASES,
        raw::CASES,
    ]
    .concat()
    {
        let bench = Bench::new(&endpoint, name).await;
        let (client, home) = (bench.client.clone(), bench.home.clone());
        let tasks = LocalSet::new();
        // A task of its own, so that a panic ends only the case.
        let run = tasks.spawn_local(tokio::time::timeout(Duration::from_secs(60), case(bench)));
        if !matches!(tasks.run_until(run).await, Ok(Ok(()))) {
            failed.push(name);
        }
        client.rm(&home).await.expect("cannot remove the directory of the case");
    }
    let client = Client::connect(endpoint.clone())
        .await
        .expect("the store can be reached");
    client
        .rm(&"/xenplug-suite".parse().unwrap())
        .await
        .expect("cannot remove the directory of the suite");
    assert!(
        failed.is_empty(),
        "{} cases failed against {endpoint}: {failed:?}",
        failed.len()
    );
}

/// Fixture of a case.
struct Bench {
    endpoint: Endpoint,
    client: Client,
    /// Directory of the case, empty at the beginning.
    home: Path,
}

impl Bench {
    async fn new(endpoint: &Endpoint, case: &str) -> Self {
        let client = Client::connect(endpoint.clone())
            .await
            .expect("the store can be reached");
        let home: Path = format!("/xenplug-suite/{case}").parse().unwrap();
        client.mkdir(&home).await.unwrap();
        Self {
            endpoint: endpoint.clone(),
            client,
            home,
        }
    }

    /// Returns a path below the directory of the case.
    fn at(&self, below: &str) -> Path {
        self.home.join(below).unwrap()
    }

    /// Opens another connection.
    async fn another(&self) -> Client {
        Client::connect(self.endpoint.clone()).await.unwrap()
    }
}

/// Waits for the next event, at most 5 seconds.
async fn next(watch: &mut Watch) -> Event {
    let event = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
    event.expect("an event comes soon").expect("the watch goes on")
}

/// Expects a change of the node as the next event.
async fn expect_change(watch: &mut Watch, path: &Path) {
    assert_eq!(next(watch).await, Event::Changed(path.clone()));
}

/// Expects that no event is queued, here or in the store.
async fn expect_silence(watch: &mut Watch, client: &Client) {
    // Replies and events come in order: this reply follows all events of earlier requests.
    let _ = client.domain_path(0).await.unwrap();
    assert_eq!(watch.try_next(), None);
}

fn assert_errno<T: std::fmt::Debug>(result: Result<T, Error>, expected: Errno) {
    let error = result.expect_err("the store refuses this");
    assert_eq!(error.errno(), Some(expected), "{error}");
}
