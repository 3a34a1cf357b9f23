//! Cases: nodes, values, directories, permissions.

use super::{Bench, assert_errno, cases};
use xenplug_xenstore::{Errno, Error, Path, Permission, Reply, Request};

cases![
    written_value_is_read,
    value_is_any_bytes_up_to_a_full_message,
    write_creates_missing_ancestors_with_empty_values,
    mkdir_keeps_an_existing_value,
    rm_removes_descendants,
    rm_of_an_absent_node_needs_only_its_parent,
    root_cannot_be_removed,
    absent_node_is_enoent,
    overlong_path_is_einval,
    children_are_listed_in_order_of_creation,
    directory_longer_than_a_message_is_listed_in_full,
    permissions_keep_their_order,
    new_node_inherits_permissions_of_nearest_ancestor,
    batch_runs_in_order_with_one_reply_each,
    many_callers_share_one_connection,
    cancelled_requests_disturb_no_other,
    snapshot_has_all_children_with_values,
    snapshot_of_a_long_directory_is_complete,
];

async fn written_value_is_read(bench: Bench) {
    let path = bench.at("a");
    for value in ["1", "", "two words"] {
        bench.client.write(&path, value).await.unwrap();
        assert_eq!(bench.client.read(&path).await.unwrap(), value.as_bytes());
    }
}

async fn value_is_any_bytes_up_to_a_full_message(bench: Bench) {
    let path = bench.at("a");
    let bytes: Vec<u8> = (0..=255).cycle().take(3000).collect();
    bench.client.write(&path, &bytes).await.unwrap();
    assert_eq!(bench.client.read(&path).await.unwrap(), bytes);
    let largest = vec![b'x'; 4080 - path.as_str().len() - 1];
    bench.client.write(&path, &largest).await.unwrap();
    assert_eq!(bench.client.read(&path).await.unwrap(), largest);
    let too_large = [&largest[..], b"x"].concat();
    assert!(matches!(
        bench.client.write(&path, &too_large).await,
        Err(Error::TooLarge { size: 4081, .. })
    ));
    assert_eq!(bench.client.read(&path).await.unwrap(), largest);
}

async fn write_creates_missing_ancestors_with_empty_values(bench: Bench) {
    bench.client.write(&bench.at("a/b/c"), "deep").await.unwrap();
    assert_eq!(bench.client.read(&bench.at("a")).await.unwrap(), b"");
    assert_eq!(bench.client.read(&bench.at("a/b")).await.unwrap(), b"");
    assert_eq!(bench.client.directory(&bench.at("a/b")).await.unwrap(), ["c"]);
}

async fn mkdir_keeps_an_existing_value(bench: Bench) {
    bench.client.write(&bench.at("a"), "kept").await.unwrap();
    bench.client.mkdir(&bench.at("a")).await.unwrap();
    assert_eq!(bench.client.read(&bench.at("a")).await.unwrap(), b"kept");
}

async fn rm_removes_descendants(bench: Bench) {
    for below in ["a/b/c", "a/b/d", "a/e", "f"] {
        bench.client.write(&bench.at(below), "x").await.unwrap();
    }
    bench.client.rm(&bench.at("a")).await.unwrap();
    assert_eq!(bench.client.directory(&bench.home).await.unwrap(), ["f"]);
    assert_errno(bench.client.read(&bench.at("a/b/c")).await, Errno::NoEnt);
    bench.client.write(&bench.at("a/b/c"), "again").await.unwrap();
    assert_eq!(bench.client.directory(&bench.at("a/b")).await.unwrap(), ["c"]);
}

async fn rm_of_an_absent_node_needs_only_its_parent(bench: Bench) {
    bench.client.rm(&bench.at("missing")).await.unwrap();
    assert_errno(bench.client.rm(&bench.at("missing/child")).await, Errno::NoEnt);
}

async fn root_cannot_be_removed(bench: Bench) {
    assert_errno(bench.client.rm(&Path::root()).await, Errno::Invalid);
}

async fn absent_node_is_enoent(bench: Bench) {
    let missing = bench.at("missing/deeply");
    assert_errno(bench.client.read(&missing).await, Errno::NoEnt);
    assert_errno(bench.client.directory(&missing).await, Errno::NoEnt);
    assert_errno(bench.client.permissions(&missing).await, Errno::NoEnt);
    assert_errno(
        bench.client.set_permissions(&missing, &[Permission::none(0)]).await,
        Errno::NoEnt,
    );
    assert_eq!(bench.client.snapshot(&missing).await.unwrap(), None);
}

async fn overlong_path_is_einval(bench: Bench) {
    // Outside of the homes of domains xenstored allows 2048 bytes, and not the 3072 of the protocol.
    let long = "a".repeat(2048);
    let path: Path = format!("/{long}").parse().unwrap();
    assert_errno(bench.client.write(&path, "x").await, Errno::Invalid);
    let home: Path = format!("/local/domain/4242/{long}").parse().unwrap();
    bench.client.write(&home, "x").await.unwrap();
    bench.client.rm(&"/local/domain/4242".parse().unwrap()).await.unwrap();
}

async fn children_are_listed_in_order_of_creation(bench: Bench) {
    for name in ["z", "a", "m"] {
        bench.client.write(&bench.at(name), "x").await.unwrap();
    }
    bench.client.rm(&bench.at("a")).await.unwrap();
    bench.client.mkdir(&bench.at("a")).await.unwrap();
    assert_eq!(bench.client.directory(&bench.home).await.unwrap(), ["z", "m", "a"]);
}

fn long_directory(bench: &Bench) -> (Vec<String>, Vec<Request>) {
    let names: Vec<String> = (0..600).map(|number| format!("a-rather-long-name-{number}")).collect();
    let requests = names
        .iter()
        .map(|name| Request::Write(bench.at(name), name.clone().into_bytes()))
        .collect();
    (names, requests)
}

async fn directory_longer_than_a_message_is_listed_in_full(bench: Bench) {
    let (names, requests) = long_directory(&bench);
    for reply in bench.client.batch(requests).await.unwrap() {
        reply.unwrap();
    }
    assert_errno(
        bench
            .client
            .batch(vec![Request::Directory(bench.home.clone())])
            .await
            .unwrap()
            .remove(0),
        Errno::TooBig,
    );
    assert_eq!(bench.client.directory(&bench.home).await.unwrap(), names);
    let transaction = bench.client.begin().await.unwrap();
    assert_eq!(transaction.directory(&bench.home).await.unwrap(), names);
    transaction.commit().await.unwrap();
}

async fn permissions_keep_their_order(bench: Bench) {
    let path = bench.at("a");
    bench.client.write(&path, "x").await.unwrap();
    let permissions = [
        Permission::none(3),
        Permission::read(1),
        Permission::both(7),
        Permission::write(2),
    ];
    bench.client.set_permissions(&path, &permissions).await.unwrap();
    assert_eq!(bench.client.permissions(&path).await.unwrap(), permissions);
    assert_errno(bench.client.set_permissions(&path, &[]).await, Errno::Invalid);
}

async fn new_node_inherits_permissions_of_nearest_ancestor(bench: Bench) {
    let permissions = [Permission::none(3), Permission::read(1)];
    bench.client.mkdir(&bench.at("a")).await.unwrap();
    bench
        .client
        .set_permissions(&bench.at("a"), &permissions)
        .await
        .unwrap();
    bench.client.write(&bench.at("a/b/c"), "x").await.unwrap();
    for below in ["a/b", "a/b/c"] {
        assert_eq!(
            bench.client.permissions(&bench.at(below)).await.unwrap(),
            permissions,
            "{below}"
        );
    }
}

async fn batch_runs_in_order_with_one_reply_each(bench: Bench) {
    let (a, missing) = (bench.at("a"), bench.at("b"));
    let mut requests = Vec::new();
    for number in 0..50_u8 {
        requests.push(Request::Write(a.clone(), vec![number]));
        requests.push(Request::Read(a.clone()));
        requests.push(Request::Read(missing.clone()));
    }
    let replies = bench.client.batch(requests).await.unwrap();
    assert_eq!(replies.len(), 150);
    for (number, replies) in replies.chunks(3).enumerate() {
        assert_eq!(replies[0].clone().unwrap(), Reply::Done);
        assert_eq!(replies[1].clone().unwrap(), Reply::Value(vec![number as u8]));
        assert_errno(replies[2].clone(), Errno::NoEnt);
    }
    assert!(bench.client.batch(Vec::new()).await.unwrap().is_empty());
}

async fn many_callers_share_one_connection(bench: Bench) {
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let (client, path) = (bench.client.clone(), bench.at(&format!("caller-{number}")));
            tokio::spawn(async move {
                for round in 0..5 {
                    let value = format!("{number} {round}");
                    client.write(&path, &value).await.unwrap();
                    assert_eq!(client.read(&path).await.unwrap(), value.as_bytes());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn cancelled_requests_disturb_no_other(bench: Bench) {
    let path = bench.at("a");
    bench.client.write(&path, "x").await.unwrap();
    for round in 0..200 {
        let read = bench.client.read(&path);
        let begin = bench.client.begin();
        let watch = bench.client.watch(&path);
        // Polled once, or not long enough, and then dropped.
        let deadline = std::time::Duration::from_micros(round);
        let _ = tokio::time::timeout(deadline, async { tokio::join!(read, begin, watch) }).await;
    }
    for _ in 0..20 {
        assert_eq!(bench.client.read(&path).await.unwrap(), b"x");
        bench.client.begin().await.unwrap().commit().await.unwrap();
    }
}

async fn snapshot_has_all_children_with_values(bench: Bench) {
    bench.client.write(&bench.at("a"), "1").await.unwrap();
    bench.client.write(&bench.at("b/below"), "2").await.unwrap();
    let snapshot = bench.client.snapshot(&bench.home).await.unwrap().unwrap();
    assert_eq!(
        snapshot.into_iter().collect::<Vec<_>>(),
        [("a".into(), b"1".to_vec()), ("b".into(), b"".to_vec())]
    );
    assert_eq!(
        bench.client.snapshot(&bench.at("a")).await.unwrap(),
        Some(Default::default())
    );
}

async fn snapshot_of_a_long_directory_is_complete(bench: Bench) {
    let (names, requests) = long_directory(&bench);
    bench.client.batch(requests).await.unwrap();
    let snapshot = bench.client.snapshot(&bench.home).await.unwrap().unwrap();
    assert_eq!(snapshot.len(), names.len());
    assert!(snapshot.iter().all(|(name, value)| name.as_bytes() == value));
}
