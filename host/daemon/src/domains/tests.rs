//! Domains that come and go, told by a watch and without one.

use tokio::{sync::mpsc, time::timeout};
use xenplug_store_server::{Options, Server};

use super::*;

const GUEST: DomId = DomId(3);

/// How long it takes until somebody is told that a guest has gone.
async fn told_after(options: Options) -> Duration {
    let server = Server::new(options);
    let endpoint = server.transport(0, None).endpoint();
    let client = Client::connect(endpoint).await.expect("a connection");
    client.introduce(GUEST.0, 1, 1).await.expect("domain 0 may");
    let domains = Domains::new(client.clone());
    assert!(domains.introduced(GUEST).await.expect("it can be asked for"));
    let (tell, mut told) = mpsc::unbounded_channel();
    let follow = domains.follow(|domain| tell.send(domain).expect("somebody listens"));
    let ends = async {
        // After the watches are set.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!domains.gone(GUEST));
        let begun = Instant::now();
        client.release(GUEST.0).await.expect("domain 0 may");
        let domain = timeout(Duration::from_secs(60), told.recv()).await;
        assert_eq!(domain, Ok(Some(GUEST)));
        assert!(domains.gone(GUEST));
        begun.elapsed()
    };
    tokio::select! {
        () = follow => unreachable!("it has no end"),
        after = ends => after,
    }
}

#[tokio::test(start_paused = true)]
async fn where_domains_cannot_be_watched_they_are_polled() {
    assert_eq!(told_after(Options::default()).await, Duration::ZERO);
    let mut secretive = Options::default();
    secretive.refuse_special_watches = true;
    let after = told_after(secretive).await;
    assert!(after > Duration::ZERO && after <= POLL, "{after:?}");
}
