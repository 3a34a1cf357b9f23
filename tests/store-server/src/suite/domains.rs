//! Cases: what only the control domain does.

use super::{Bench, assert_errno, cases, expect_change, expect_silence};
use xenplug_xenstore::{Errno, Path, Permission};

cases![
    a_domain_has_a_home,
    introducing_and_releasing_a_domain_is_told,
    what_a_released_domain_owned_is_removed,
    a_released_domain_leaves_no_permission_to_the_next_of_its_number,
    a_special_event_can_be_allowed_to_others,
];

/// A domain of these tests, which no other has.
const DOMID: u16 = 4711;

async fn a_domain_has_a_home(bench: Bench) {
    assert_eq!(bench.client.domain_path(7).await.unwrap(), Path::home(7));
}

async fn introducing_and_releasing_a_domain_is_told(bench: Bench) {
    let [introduce, release] = ["@introduceDomain", "@releaseDomain"].map(|name| name.parse::<Path>().unwrap());
    let mut introduced = bench.client.watch(&introduce).await.unwrap();
    let mut released = bench.client.watch(&release).await.unwrap();
    expect_change(&mut introduced, &introduce).await;
    expect_change(&mut released, &release).await;
    assert!(!bench.client.is_introduced(DOMID).await.unwrap());
    assert!(bench.client.is_introduced(0).await.unwrap());
    bench.client.introduce(DOMID, 1, 1).await.unwrap();
    expect_change(&mut introduced, &introduce).await;
    assert!(bench.client.is_introduced(DOMID).await.unwrap());
    bench.client.introduce(DOMID, 1, 1).await.unwrap();
    expect_silence(&mut introduced, &bench.client).await;
    bench.client.release(DOMID).await.unwrap();
    expect_change(&mut released, &release).await;
    assert!(!bench.client.is_introduced(DOMID).await.unwrap());
    assert_errno(bench.client.release(DOMID).await, Errno::NoEnt);
    expect_silence(&mut released, &bench.client).await;
}

async fn what_a_released_domain_owned_is_removed(bench: Bench) {
    bench.client.introduce(DOMID, 1, 1).await.unwrap();
    bench.client.write(&bench.at("theirs/below"), "x").await.unwrap();
    bench.client.write(&bench.at("ours"), "x").await.unwrap();
    bench
        .client
        .set_permissions(&bench.at("theirs"), &[Permission::none(DOMID)])
        .await
        .unwrap();
    let mut watch = bench.client.watch(&bench.at("theirs")).await.unwrap();
    expect_change(&mut watch, &bench.at("theirs")).await;
    bench.client.release(DOMID).await.unwrap();
    expect_change(&mut watch, &bench.at("theirs")).await;
    assert_eq!(bench.client.directory(&bench.home).await.unwrap(), ["ours"]);
}

async fn a_released_domain_leaves_no_permission_to_the_next_of_its_number(bench: Bench) {
    bench.client.introduce(DOMID, 1, 1).await.unwrap();
    bench.client.write(&bench.at("a"), "x").await.unwrap();
    let permissions = [Permission::none(0), Permission::read(DOMID)];
    bench
        .client
        .set_permissions(&bench.at("a"), &permissions)
        .await
        .unwrap();
    bench.client.release(DOMID).await.unwrap();
    bench.client.introduce(DOMID, 1, 1).await.unwrap();
    // The entry may still be shown; it counts for nothing, which takes a client of that domain to see.
    assert_eq!(
        bench.client.permissions(&bench.at("a")).await.unwrap().first(),
        Some(&Permission::none(0))
    );
    bench.client.release(DOMID).await.unwrap();
}

async fn a_special_event_can_be_allowed_to_others(bench: Bench) {
    let release: Path = "@releaseDomain".parse().unwrap();
    bench
        .client
        .set_permissions(&release, &[Permission::none(0), Permission::read(DOMID)])
        .await
        .unwrap();
    bench
        .client
        .set_permissions(&release, &[Permission::none(0)])
        .await
        .unwrap();
    let unknown: Path = "@nothing".parse().unwrap();
    // Which error, xenstored leaves to what errno was before.
    assert!(
        bench
            .client
            .set_permissions(&unknown, &[Permission::none(0)])
            .await
            .is_err()
    );
}
