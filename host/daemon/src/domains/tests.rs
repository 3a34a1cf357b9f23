//! Domains that come and go, noticed by watches and by polls.

use tokio::{sync::mpsc, time::timeout};
use xenplug_store_server::{Options, Server};

use super::*;

const GUEST: DomId = DomId(3);

/// Measures the time until a domain's end is noticed.
async fn time_to_notice(options: Options) -> Duration {
    let server = Server::new(options);
    let endpoint = server.transport(0, None).endpoint();
    let client = Client::connect(endpoint).await.expect("a connection");
    client.introduce(GUEST.0, 1, 1).await.expect("domain 0 may");
    let domains = Domains::new(client.clone());
    assert!(domains.introduced(GUEST).await.expect("it can be asked for"));
    let (sender, mut noticed) = mpsc::unbounded_channel();
    let follow = domains.follow(|domain| sender.send(domain).expect("somebody listens"));
    let ends = async {
        // After the watches are set.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!domains.gone(GUEST));
        let begun = Instant::now();
        client.release(GUEST.0).await.expect("domain 0 may");
        let domain = timeout(Duration::from_secs(60), noticed.recv()).await;
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
async fn domains_are_polled_where_they_cannot_be_watched() {
    assert_eq!(time_to_notice(Options::default()).await, Duration::ZERO);
    let mut secretive = Options::default();
    secretive.refuse_special_watches = true;
    let after = time_to_notice(secretive).await;
    assert!(after > Duration::ZERO && after <= POLL, "{after:?}");
}
