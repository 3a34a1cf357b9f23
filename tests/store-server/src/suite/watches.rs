//! Cases: watches.

use super::{Bench, cases, expect_change, expect_silence, next};
use xenplug_xenstore::{Event, Path, Permission, Request};

cases![
    new_watch_fires_once,
    watch_fires_at_and_below_its_path,
    watch_of_an_absent_node_fires_on_creation,
    rm_of_a_tree_fires_watches_above_once_and_each_below,
    transaction_fires_watches_at_its_commit,
    change_of_permissions_fires_watches,
    relative_watch_has_relative_events,
    two_watches_of_one_path_both_fire,
    dropped_watch_does_not_fire,
    unread_watch_delays_no_other,
    many_watches_work_on_one_connection,
];

async fn new_watch_fires_once(bench: Bench) {
    for path in [bench.at("missing"), bench.home.clone()] {
        let mut watch = bench.client.watch(&path).await.unwrap();
        expect_change(&mut watch, &path).await;
        expect_silence(&mut watch, &bench.client).await;
    }
}

async fn watch_fires_at_and_below_its_path(bench: Bench) {
    let writer = bench.another().await;
    let mut watch = bench.client.watch(&bench.at("a")).await.unwrap();
    expect_change(&mut watch, &bench.at("a")).await;
    for below in ["a", "a/b", "a/b/c"] {
        writer.write(&bench.at(below), "x").await.unwrap();
        expect_change(&mut watch, &bench.at(below)).await;
    }
    writer.write(&bench.at("ab"), "x").await.unwrap();
    writer.read(&bench.at("a")).await.unwrap();
    writer.mkdir(&bench.at("a")).await.unwrap();
    expect_silence(&mut watch, &bench.client).await;
}

async fn watch_of_an_absent_node_fires_on_creation(bench: Bench) {
    let mut watch = bench.client.watch(&bench.at("a/b")).await.unwrap();
    expect_change(&mut watch, &bench.at("a/b")).await;
    bench.client.write(&bench.at("a/b/c"), "x").await.unwrap();
    expect_change(&mut watch, &bench.at("a/b/c")).await;
}

async fn rm_of_a_tree_fires_watches_above_once_and_each_below(bench: Bench) {
    for below in ["a/b/c", "a/b/d"] {
        bench.client.write(&bench.at(below), "x").await.unwrap();
    }
    let mut above = bench.client.watch(&bench.home).await.unwrap();
    let mut below = bench.client.watch(&bench.at("a/b/c")).await.unwrap();
    expect_change(&mut above, &bench.home).await;
    expect_change(&mut below, &bench.at("a/b/c")).await;
    bench.client.rm(&bench.at("a")).await.unwrap();
    expect_change(&mut above, &bench.at("a")).await;
    expect_change(&mut below, &bench.at("a/b/c")).await;
    expect_silence(&mut above, &bench.client).await;
    expect_silence(&mut below, &bench.client).await;
}

async fn transaction_fires_watches_at_its_commit(bench: Bench) {
    let mut watch = bench.client.watch(&bench.home).await.unwrap();
    expect_change(&mut watch, &bench.home).await;
    let transaction = bench.client.begin().await.unwrap();
    transaction.write(&bench.at("a"), "1").await.unwrap();
    transaction.write(&bench.at("a"), "2").await.unwrap();
    transaction.write(&bench.at("b"), "2").await.unwrap();
    expect_silence(&mut watch, &bench.client).await;
    transaction.commit().await.unwrap();
    let mut events = [next(&mut watch).await, next(&mut watch).await];
    events.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(events, [Event::Changed(bench.at("a")), Event::Changed(bench.at("b"))]);
    expect_silence(&mut watch, &bench.client).await;
    let transaction = bench.client.begin().await.unwrap();
    transaction.write(&bench.at("c"), "1").await.unwrap();
    transaction.abort().await.unwrap();
    expect_silence(&mut watch, &bench.client).await;
}

async fn change_of_permissions_fires_watches(bench: Bench) {
    bench.client.write(&bench.at("a"), "x").await.unwrap();
    let mut watch = bench.client.watch(&bench.at("a")).await.unwrap();
    expect_change(&mut watch, &bench.at("a")).await;
    bench
        .client
        .set_permissions(&bench.at("a"), &[Permission::read(0)])
        .await
        .unwrap();
    expect_change(&mut watch, &bench.at("a")).await;
}

async fn relative_watch_has_relative_events(bench: Bench) {
    let relative: Path = "xenplug-suite-relative".parse().unwrap();
    let absolute = Path::home(0).join(relative.as_str()).unwrap();
    let mut watch = bench.client.watch(&relative).await.unwrap();
    expect_change(&mut watch, &relative).await;
    bench.client.write(&absolute.join("a").unwrap(), "x").await.unwrap();
    expect_change(&mut watch, &relative.join("a").unwrap()).await;
    assert_eq!(bench.client.read(&relative.join("a").unwrap()).await.unwrap(), b"x");
    bench.client.rm(&relative).await.unwrap();
    expect_change(&mut watch, &relative).await;
}

async fn two_watches_of_one_path_both_fire(bench: Bench) {
    let mut one = bench.client.watch(&bench.home).await.unwrap();
    let mut two = bench.client.watch(&bench.home).await.unwrap();
    bench.client.write(&bench.at("a"), "x").await.unwrap();
    for watch in [&mut one, &mut two] {
        expect_change(watch, &bench.home).await;
        expect_change(watch, &bench.at("a")).await;
    }
}

async fn dropped_watch_does_not_fire(bench: Bench) {
    for _ in 0..300 {
        // More watches than an unprivileged domain may have at a time.
        drop(bench.client.watch(&bench.home).await.unwrap());
    }
    let mut watch = bench.client.watch(&bench.home).await.unwrap();
    expect_change(&mut watch, &bench.home).await;
    bench.client.write(&bench.at("a"), "x").await.unwrap();
    expect_change(&mut watch, &bench.at("a")).await;
}

async fn unread_watch_delays_no_other(bench: Bench) {
    let mut lazy = bench.client.watch(&bench.home).await.unwrap();
    let mut busy = bench.client.watch(&bench.at("last")).await.unwrap();
    expect_change(&mut busy, &bench.at("last")).await;
    let writer = bench.another().await;
    for round in 0..50 {
        let writes = (0..100).map(|number| {
            let path = bench.at(&format!("{}", (round * 100 + number) % 3000));
            Request::Write(path, b"x".to_vec())
        });
        writer.batch(writes.collect()).await.unwrap();
    }
    // The connection with the unread events still serves requests.
    assert_eq!(bench.client.read(&bench.at("0")).await.unwrap(), b"x");
    writer.write(&bench.at("last"), "x").await.unwrap();
    expect_change(&mut busy, &bench.at("last")).await;
    assert_eq!(next(&mut lazy).await, Event::Resync);
}

async fn many_watches_work_on_one_connection(bench: Bench) {
    let mut watches = Vec::new();
    for number in 0..1000 {
        watches.push(bench.client.watch(&bench.at(&format!("{number}"))).await.unwrap());
    }
    let writes = (0..1000).map(|number| Request::Write(bench.at(&format!("{number}")), b"x".to_vec()));
    bench.client.batch(writes.collect()).await.unwrap();
    for (number, watch) in watches.iter_mut().enumerate() {
        expect_change(watch, &bench.at(&format!("{number}"))).await;
    }
}
