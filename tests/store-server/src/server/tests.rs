//! Tests of the server: the suite, and requests of an unprivileged domain.

use std::time::Duration;

use proptest::prelude::*;

use xenplug_xenstore::{
    Client, Endpoint, Errno, Error, Event, Path as Node, Permission, Request, Watch,
    protocol::{Frame, Kind, first_frame},
};

use super::*;
use crate::{outbox::Outbox, suite};

const DOMU: u16 = 5;

/// Server, and clients of domain 0 and of an unprivileged domain.
struct Bench {
    server: Server,
    dom0: Client,
    domu: Client,
    directory: tempfile::TempDir,
}

impl Bench {
    async fn new(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Server::bind(directory.path().join("socket"), options).unwrap();
        server.listen_as(directory.path().join("domu"), DOMU).unwrap();
        let dom0 = Client::connect(Endpoint::Socket(directory.path().join("socket")))
            .await
            .unwrap();
        let domu = Client::connect(Endpoint::Socket(directory.path().join("domu")))
            .await
            .unwrap();
        Self {
            server,
            dom0,
            domu,
            directory,
        }
    }

    async fn domu(&self) -> Client {
        Client::connect(Endpoint::Socket(self.directory.path().join("domu")))
            .await
            .unwrap()
    }

    /// Writes a node as domain 0, with permissions.
    async fn put(&self, path: &str, permissions: &[Permission]) -> Node {
        let path = node(path);
        self.dom0.write(&path, "x").await.unwrap();
        self.dom0.set_permissions(&path, permissions).await.unwrap();
        path
    }
}

fn node(path: &str) -> Node {
    path.parse().unwrap()
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<Errno> {
    result.expect_err("the store refuses this").errno()
}

async fn next(watch: &mut Watch) -> Event {
    tokio::time::timeout(Duration::from_secs(5), watch.next())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn server_passes_the_suite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let server = Server::bind(&path, Options::default()).unwrap();
    suite::every_case(Endpoint::Socket(path)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The initial nodes, and /local/domain/0.
    assert_eq!(
        server.stats(),
        Stats {
            nodes: 3 + 3,
            ..Stats::default()
        }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_passes_the_suite_on_several_threads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _server = Server::bind(&path, Options::default()).unwrap();
    suite::every_case(Endpoint::Socket(path)).await;
}

#[tokio::test]
async fn permissions_decide_access() {
    let bench = Bench::new(Options::default()).await;
    for (permissions, reads, writes) in [
        (&[Permission::none(0)][..], false, false),
        (&[Permission::read(0)], true, false),
        (&[Permission::write(0)], false, true),
        (&[Permission::both(0)], true, true),
        (&[Permission::none(DOMU)], true, true),
        (&[Permission::none(0), Permission::read(DOMU)], true, false),
        (&[Permission::none(0), Permission::write(DOMU)], false, true),
        (&[Permission::none(0), Permission::both(DOMU)], true, true),
        (&[Permission::both(0), Permission::none(DOMU)], false, false),
        (&[Permission::none(0), Permission::both(6)], false, false),
    ] {
        let path = bench.put("/a", permissions).await;
        let read = bench.domu.read(&path).await;
        assert_eq!(read.is_ok(), reads, "{permissions:?}");
        assert!(reads || errno(read) == Some(Errno::Access));
        let write = bench.domu.write(&path, "y").await;
        assert_eq!(write.is_ok(), writes, "{permissions:?}");
        assert!(writes || errno(write) == Some(Errno::Access));
    }
}

#[tokio::test]
async fn absence_is_hidden_from_domains_without_access() {
    let bench = Bench::new(Options::default()).await;
    bench.put("/hidden", &[Permission::none(0)]).await;
    bench.put("/open", &[Permission::read(0)]).await;
    assert_eq!(errno(bench.domu.read(&node("/hidden/a")).await), Some(Errno::Access));
    assert_eq!(errno(bench.domu.read(&node("/open/a")).await), Some(Errno::NoEnt));
    assert_eq!(
        errno(bench.domu.write(&node("/open/a"), "x").await),
        Some(Errno::Access)
    );
    assert_eq!(errno(bench.domu.rm(&node("/open/a/b")).await), Some(Errno::Access));
}

#[tokio::test]
async fn unprivileged_domain_owns_its_nodes_for_good() {
    let bench = Bench::new(Options::default()).await;
    bench
        .put(
            "/a",
            &[Permission::none(0), Permission::both(DOMU), Permission::read(7)],
        )
        .await;
    bench.domu.write(&node("/a/b/c"), "x").await.unwrap();
    for path in ["/a/b", "/a/b/c"] {
        let expected = [Permission::none(DOMU), Permission::both(DOMU), Permission::read(7)];
        assert_eq!(bench.dom0.permissions(&node(path)).await.unwrap(), expected);
    }
    let own = node("/a/b");
    bench
        .domu
        .set_permissions(&own, &[Permission::none(DOMU), Permission::read(9)])
        .await
        .unwrap();
    assert_eq!(
        errno(bench.domu.set_permissions(&own, &[Permission::none(0)]).await),
        Some(Errno::Perm)
    );
    assert_eq!(
        errno(bench.domu.set_permissions(&node("/a"), &[Permission::none(DOMU)]).await),
        Some(Errno::Access)
    );
}

#[tokio::test]
async fn owner_removes_its_node_from_a_foreign_directory() {
    let bench = Bench::new(Options::default()).await;
    bench
        .put("/backend/vbd/3", &[Permission::none(0), Permission::read(DOMU)])
        .await;
    bench
        .put("/backend/vbd/3/51712", &[Permission::none(DOMU), Permission::read(3)])
        .await;
    assert_eq!(errno(bench.domu.rm(&node("/backend/vbd/3")).await), Some(Errno::Access));
    bench.domu.rm(&node("/backend/vbd/3/51712")).await.unwrap();
    assert!(bench.domu.directory(&node("/backend/vbd/3")).await.unwrap().is_empty());
}

#[tokio::test]
async fn relative_paths_start_at_the_home() {
    let bench = Bench::new(Options::default()).await;
    bench.put("/local/domain/5", &[Permission::none(DOMU)]).await;
    let mut watch = bench.domu.watch(&node("backend")).await.unwrap();
    assert_eq!(next(&mut watch).await, Event::Changed(node("backend")));
    bench.domu.write(&node("backend/vbd"), "x").await.unwrap();
    assert_eq!(next(&mut watch).await, Event::Changed(node("backend/vbd")));
    assert_eq!(
        bench.dom0.read(&node("/local/domain/5/backend/vbd")).await.unwrap(),
        b"x"
    );
}

#[tokio::test]
async fn only_privileged_domains_manage_domains() {
    let bench = Bench::new(Options::default()).await;
    assert_eq!(errno(bench.domu.introduce(9, 1, 1).await), Some(Errno::Access));
    assert_eq!(errno(bench.domu.release(9).await), Some(Errno::Access));
    assert_eq!(errno(bench.domu.is_introduced(9).await), Some(Errno::Access));
    assert_eq!(bench.domu.domain_path(9).await.unwrap(), node("/local/domain/9"));
}

#[tokio::test]
async fn watches_fire_only_for_readable_nodes() {
    let bench = Bench::new(Options::default()).await;
    let path = bench.put("/a", &[Permission::none(0)]).await;
    let mut watch = bench.domu.watch(&path).await.unwrap();
    assert_eq!(next(&mut watch).await, Event::Changed(path.clone()));
    bench.dom0.write(&path, "secret").await.unwrap();
    bench.domu.domain_path(0).await.unwrap();
    assert_eq!(watch.try_next(), None);
    // A watch fires too when its domain loses the right to read.
    for permissions in [Permission::read(0), Permission::none(0)] {
        bench.dom0.set_permissions(&path, &[permissions]).await.unwrap();
        assert_eq!(next(&mut watch).await, Event::Changed(path.clone()));
    }
}

#[tokio::test]
async fn special_events_need_privilege_or_permission() {
    let bench = Bench::new(Options::default()).await;
    let release = node("@releaseDomain");
    let mut watch = bench.domu.watch(&release).await.unwrap();
    assert_eq!(next(&mut watch).await, Event::Changed(release.clone()));
    for allowed in [false, true] {
        bench.dom0.introduce(9, 1, 1).await.unwrap();
        bench.dom0.release(9).await.unwrap();
        bench.domu.domain_path(0).await.unwrap();
        assert_eq!(watch.try_next().is_some(), allowed);
        assert_eq!(
            errno(bench.domu.set_permissions(&release, &[Permission::read(0)]).await),
            Some(Errno::Access)
        );
        let permissions = [Permission::none(0), Permission::read(DOMU)];
        bench.dom0.set_permissions(&release, &permissions).await.unwrap();
    }
}

#[tokio::test]
async fn released_domain_is_disconnected_and_leaves_no_rights() {
    let bench = Bench::new(Options::default()).await;
    bench.dom0.introduce(DOMU, 1, 1).await.unwrap();
    let path = bench.put("/a", &[Permission::none(0), Permission::read(DOMU)]).await;
    bench.put("/theirs/below", &[Permission::none(DOMU)]).await;
    bench.domu.read(&path).await.unwrap();
    bench.dom0.release(DOMU).await.unwrap();
    assert_eq!(errno(bench.dom0.read(&node("/theirs/below")).await), Some(Errno::NoEnt));
    tokio::time::timeout(Duration::from_secs(5), async {
        while bench.domu.is_connected() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(errno(bench.domu().await.read(&path).await), Some(Errno::Access));
}

#[tokio::test]
async fn node_quota_is_enforced_and_recovers() {
    let bench = Bench::new(Options::default()).await;
    let home = bench.put("/home", &[Permission::none(0), Permission::both(DOMU)]).await;
    let path = |number: usize| home.join(&format!("{}/{}", number / 50, number % 50)).unwrap();
    let mut number = 0;
    let refused = loop {
        match bench.domu.write(&path(number), "x").await {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(refused.is_quota(), "{refused}");
    // 20 directories of 50 nodes count too.
    assert_eq!(number, 1000 - 20);
    let transaction = bench.domu.begin().await.unwrap();
    assert_eq!(errno(transaction.write(&path(number), "x").await), Some(Errno::NoSpace));
    drop(transaction);
    bench.domu.rm(&path(0)).await.unwrap();
    bench.domu.write(&path(number), "x").await.unwrap();
    // A node that domain 0 creates there belongs to the owner of the nearest ancestor, without a limit.
    bench.dom0.write(&path(number + 1), "x").await.unwrap();
}

#[tokio::test]
async fn other_quotas_are_enforced() {
    let mut options = Options::default();
    options.quotas.transactions = 3;
    let bench = Bench::new(options).await;
    let path = bench.put("/a", &[Permission::none(DOMU)]).await;
    bench.domu.write(&path, "x".repeat(2000)).await.unwrap();
    assert_eq!(
        errno(bench.domu.write(&path, "x".repeat(2048)).await),
        Some(Errno::NoSpace)
    );
    assert_eq!(bench.domu.read(&path).await.unwrap().len(), 2000);
    let many: Vec<_> = (0..6).map(|_| Permission::none(DOMU)).collect();
    assert_eq!(
        errno(bench.domu.set_permissions(&path, &many).await),
        Some(Errno::NoSpace)
    );
    let mut watches = Vec::new();
    let refused = loop {
        match bench.domu.watch(&path).await {
            Ok(watch) => watches.push(watch),
            Err(error) => break error,
        }
    };
    assert_eq!((watches.len(), refused.errno()), (129, Some(Errno::TooBig)));
    drop(watches.pop());
    watches.push(bench.domu.watch(&path).await.unwrap());
    let mut transactions = Vec::new();
    let refused = loop {
        match bench.domu.begin().await {
            Ok(transaction) => transactions.push(transaction),
            Err(error) => break error,
        }
    };
    assert_eq!((transactions.len(), refused.errno()), (4, Some(Errno::NoSpace)));
}

#[tokio::test]
async fn transaction_with_too_many_nodes_fails() {
    let mut options = Options::default();
    options.quotas.transaction_nodes = 20;
    let bench = Bench::new(options).await;
    let path = bench.put("/a", &[Permission::none(DOMU)]).await;
    let transaction = bench.domu.begin().await.unwrap();
    let reads = (0..30).map(|number| Request::Read(path.join(&number.to_string()).unwrap()));
    let replies = transaction.batch(reads.collect()).await.unwrap();
    assert_eq!(replies[0].clone().unwrap_err().errno(), Some(Errno::NoEnt));
    assert_eq!(replies[29].clone().unwrap_err().errno(), Some(Errno::NoSpace));
    assert_eq!(errno(transaction.commit().await), Some(Errno::NoMemory));
}

#[tokio::test]
async fn disconnected_clients_leave_nothing() {
    let bench = Bench::new(Options::default()).await;
    let path = bench.put("/a", &[Permission::none(DOMU)]).await;
    let _watch = bench.domu.watch(&path).await.unwrap();
    let _transaction = bench.domu.begin().await.unwrap();
    assert_eq!(
        bench.server.stats(),
        Stats {
            nodes: 4,
            connections: 2,
            watches: 1,
            transactions: 1
        }
    );
    bench.server.disconnect();
    tokio::time::timeout(Duration::from_secs(5), async {
        while bench.server.stats()
            != (Stats {
                nodes: 4,
                connections: 2,
                watches: 1,
                transactions: 0,
            })
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("both connect again, with the watch and without the transaction");
}

/// Strategy for pieces of which many payloads are well-formed.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"/",
        b"/a",
        b"/a/b",
        b"/tool",
        b"a",
        b"@releaseDomain",
        b"@introduceDomain",
        b"\0",
        b"\0",
        b"n0",
        b"r5",
        b"b0",
        b"T",
        b"F",
        b"0",
        b"1",
        b"5",
        b"7",
        b"4097",
        b"token",
    ];
    prop_oneof![
        8 => proptest::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ]
}

proptest! {
    #[test]
    fn any_message_gets_one_reply(
        messages in proptest::collection::vec(
            (0_u32..26, 0_u32..4, proptest::collection::vec(piece(), 0..7), 0_u64..3), 1..60,
        ),
    ) {
        let mut store = Store::new(Options::default());
        let peers: Vec<_> = [0, 0, DOMU].into_iter().map(|domid| {
            let outbox = Arc::new(Outbox::default());
            (store.connect(domid, outbox.clone()), outbox)
        }).collect();
        for (kind, transaction, pieces, peer) in messages {
            let (id, outbox) = &peers[peer as usize];
            let payload = pieces.concat();
            store.handle(*id, Frame { kind, request: 77, transaction, payload: &payload });
            // A released domain is disconnected.
            let Some(bytes) = outbox.take() else { continue };
            let (mut rest, mut replies) = (&bytes[..], 0);
            while let Some((frame, length)) = first_frame(rest).unwrap() {
                if frame.kind != Kind::WatchEvent as u32 {
                    prop_assert_eq!((frame.request, frame.transaction), (77, transaction));
                    prop_assert!(frame.kind == kind || frame.kind == Kind::Error as u32);
                    replies += 1;
                }
                rest = &rest[length..];
            }
            prop_assert_eq!((replies, rest.len()), (1, 0));
        }
    }
}
