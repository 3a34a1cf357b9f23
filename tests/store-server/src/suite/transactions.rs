//! Cases: transactions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Bench, assert_errno, cases};
use xenplug_xenstore::{Backoff, Errno, Error, Permission, Request};

cases![
    transaction_is_invisible_until_its_commit,
    aborted_or_dropped_transaction_changes_nothing,
    transaction_sees_a_node_as_first_read,
    change_of_a_read_node_fails_the_commit,
    change_of_another_node_does_not_fail_the_commit,
    new_child_conflicts_with_a_listing,
    creation_of_an_absent_node_conflicts,
    rm_and_create_within_a_transaction_work,
    transaction_is_retried_until_it_succeeds,
    endless_conflicts_are_an_error,
    error_within_a_transaction_aborts_it,
    transactions_above_the_limit_wait,
    snapshots_are_consistent_while_others_write,
    requests_and_commit_share_a_round_trip,
];

async fn transaction_is_invisible_until_its_commit(bench: Bench) {
    let (path, other) = (bench.at("a"), bench.another().await);
    bench.client.write(&path, "before").await.unwrap();
    let transaction = bench.client.begin().await.unwrap();
    transaction.write(&path, "after").await.unwrap();
    transaction.write(&bench.at("b/c"), "new").await.unwrap();
    transaction
        .set_permissions(&bench.at("b"), &[Permission::read(0)])
        .await
        .unwrap();
    assert_eq!(transaction.read(&path).await.unwrap(), b"after");
    assert_eq!(transaction.directory(&bench.home).await.unwrap(), ["a", "b"]);
    assert_eq!(
        transaction.permissions(&bench.at("b")).await.unwrap(),
        [Permission::read(0)]
    );
    for client in [&bench.client, &other] {
        assert_eq!(client.read(&path).await.unwrap(), b"before");
        assert_eq!(client.directory(&bench.home).await.unwrap(), ["a"]);
    }
    transaction.commit().await.unwrap();
    assert_eq!(other.read(&path).await.unwrap(), b"after");
    assert_eq!(other.read(&bench.at("b/c")).await.unwrap(), b"new");
    assert_eq!(other.permissions(&bench.at("b")).await.unwrap(), [Permission::read(0)]);
}

async fn aborted_or_dropped_transaction_changes_nothing(bench: Bench) {
    for drop_it in [false, true] {
        let transaction = bench.client.begin().await.unwrap();
        transaction.write(&bench.at("a"), "x").await.unwrap();
        if drop_it {
            drop(transaction);
        } else {
            transaction.abort().await.unwrap();
        }
        assert_errno(bench.client.read(&bench.at("a")).await, Errno::NoEnt);
    }
}

async fn transaction_sees_a_node_as_first_read(bench: Bench) {
    let path = bench.at("a");
    bench.client.write(&path, "before").await.unwrap();
    let transaction = bench.client.begin().await.unwrap();
    assert_eq!(transaction.read(&path).await.unwrap(), b"before");
    bench.client.write(&path, "after").await.unwrap();
    assert_eq!(transaction.read(&path).await.unwrap(), b"before");
    transaction.abort().await.unwrap();
}

async fn change_of_a_read_node_fails_the_commit(bench: Bench) {
    let path = bench.at("a");
    bench.client.write(&path, "1").await.unwrap();
    for remove in [false, true] {
        let transaction = bench.client.begin().await.unwrap();
        transaction.read(&path).await.unwrap();
        transaction.write(&bench.at("b"), "from the transaction").await.unwrap();
        if remove {
            bench.client.rm(&path).await.unwrap();
        } else {
            // Writing the same value is a change too.
            bench.client.write(&path, "1").await.unwrap();
        }
        assert_errno(transaction.commit().await, Errno::Again);
        assert_errno(bench.client.read(&bench.at("b")).await, Errno::NoEnt);
    }
}

async fn change_of_another_node_does_not_fail_the_commit(bench: Bench) {
    for name in ["a", "b"] {
        bench.client.write(&bench.at(name), "1").await.unwrap();
    }
    let transaction = bench.client.begin().await.unwrap();
    transaction.read(&bench.at("a")).await.unwrap();
    bench.client.write(&bench.at("b"), "2").await.unwrap();
    transaction.write(&bench.at("a"), "2").await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(bench.client.read(&bench.at("a")).await.unwrap(), b"2");
}

async fn new_child_conflicts_with_a_listing(bench: Bench) {
    let transaction = bench.client.begin().await.unwrap();
    transaction.directory(&bench.home).await.unwrap();
    bench.client.write(&bench.at("new"), "x").await.unwrap();
    assert_errno(transaction.commit().await, Errno::Again);
}

async fn creation_of_an_absent_node_conflicts(bench: Bench) {
    let transaction = bench.client.begin().await.unwrap();
    assert_errno(transaction.read(&bench.at("a")).await, Errno::NoEnt);
    bench.client.write(&bench.at("a"), "x").await.unwrap();
    assert_errno(transaction.commit().await, Errno::Again);
}

async fn rm_and_create_within_a_transaction_work(bench: Bench) {
    bench.client.write(&bench.at("old/a"), "x").await.unwrap();
    let transaction = bench.client.begin().await.unwrap();
    transaction.rm(&bench.at("old")).await.unwrap();
    transaction.mkdir(&bench.at("passing")).await.unwrap();
    transaction.rm(&bench.at("passing")).await.unwrap();
    transaction.write(&bench.at("new/b"), "y").await.unwrap();
    transaction.write(&bench.at("old/c"), "z").await.unwrap();
    assert_errno(transaction.read(&bench.at("old/a")).await, Errno::NoEnt);
    transaction.commit().await.unwrap();
    assert_eq!(bench.client.directory(&bench.home).await.unwrap(), ["new", "old"]);
    assert_eq!(bench.client.directory(&bench.at("old")).await.unwrap(), ["c"]);
}

async fn transaction_is_retried_until_it_succeeds(bench: Bench) {
    let path = bench.at("counter");
    bench.client.write(&path, "0").await.unwrap();
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let (client, path) = (bench.client.clone(), path.clone());
            tokio::task::spawn_local(async move {
                let retry = Backoff {
                    attempts: 1000,
                    ..Backoff::default()
                };
                for _ in 0..10 {
                    let add = async |transaction: &xenplug_xenstore::Transaction| {
                        let value = transaction.read(&path).await?;
                        let number: u32 = String::from_utf8_lossy(&value).parse().unwrap();
                        transaction.write(&path, (number + 1).to_string()).await
                    };
                    client.transaction(&retry, add).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(bench.client.read(&path).await.unwrap(), b"100");
}

async fn endless_conflicts_are_an_error(bench: Bench) {
    let path = bench.at("a");
    let other = bench.another().await;
    let retry = Backoff {
        attempts: 7,
        first: Duration::from_millis(1),
        most: Duration::from_millis(2),
    };
    let mut rounds = 0;
    let result: Result<(), Error> = bench
        .client
        .transaction(&retry, async |transaction| {
            rounds += 1;
            let _ = transaction.read(&path).await;
            other.write(&path, "x").await
        })
        .await;
    assert!(matches!(result, Err(Error::Conflict(7))), "{result:?}");
    assert_eq!(rounds, 7);
}

async fn error_within_a_transaction_aborts_it(bench: Bench) {
    let result: Result<(), Error> = bench
        .client
        .transaction(&Backoff::default(), async |transaction| {
            transaction.write(&bench.at("a"), "x").await?;
            transaction.read(&bench.at("missing")).await.map(drop)
        })
        .await;
    assert_errno(result, Errno::NoEnt);
    assert_errno(bench.client.read(&bench.at("a")).await, Errno::NoEnt);
}

async fn transactions_above_the_limit_wait(bench: Bench) {
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(bench.client.begin().await.unwrap());
    }
    let ninth = tokio::spawn({
        let client = bench.client.clone();
        async move { client.begin().await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!ninth.is_finished());
    drop(open.pop());
    ninth.await.unwrap().unwrap().commit().await.unwrap();
}

async fn snapshots_are_consistent_while_others_write(bench: Bench) {
    let writer = bench.another().await;
    let pair = [bench.at("x"), bench.at("y")];
    let write = |number: u32| {
        let value = number.to_string().into_bytes();
        pair.iter()
            .map(|path| Request::Write(path.clone(), value.clone()))
            .collect::<Vec<_>>()
    };
    writer.batch(write(0)).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (client, home, done) = (bench.client.clone(), bench.home.clone(), done.clone());
        async move {
            let mut snapshots = 0;
            while !done.load(Ordering::Relaxed) {
                let snapshot = match client.snapshot(&home).await {
                    Ok(snapshot) => snapshot.unwrap(),
                    // A writer that never pauses may conflict with every attempt.
                    Err(Error::Conflict(_)) => continue,
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(snapshot["x"], snapshot["y"]);
                snapshots += 1;
            }
            snapshots
        }
    });
    for number in 0..100 {
        let transaction = writer.begin().await.unwrap();
        let (_, end) = transaction.commit_after(write(number)).await.unwrap();
        end.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    done.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 0);
}

async fn requests_and_commit_share_a_round_trip(bench: Bench) {
    let transaction = bench.client.begin().await.unwrap();
    let requests = vec![
        Request::Write(bench.at("a"), b"x".to_vec()),
        Request::Read(bench.at("missing")),
    ];
    let (replies, end) = transaction.commit_after(requests).await.unwrap();
    end.unwrap();
    assert_eq!(replies.len(), 2);
    assert_errno(replies[1].clone(), Errno::NoEnt);
    assert_eq!(bench.client.read(&bench.at("a")).await.unwrap(), b"x");
}
