//! Cases: requests of the control domain.

use super::{Bench, assert_errno, cases, expect_change, expect_silence};
use xenplug_xenstore::{Errno, Path, Permission};

cases![
    domain_path_is_the_home,
    introduce_and_release_fire_special_events,
    nodes_of_a_released_domain_are_removed,
    permissions_do_not_pass_to_a_reused_domid,
    special_event_can_be_granted_to_other_domains,
];

/// Domain that only these cases use.
const DOMID: u16 = 4711;

async fn domain_path_is_the_home(bench: Bench) {
    assert_eq!(bench.client.domain_path(7).await.unwrap(), Path::home(7));
}

async fn introduce_and_release_fire_special_events(bench: Bench) {
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

async fn nodes_of_a_released_domain_are_removed(bench: Bench) {
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

async fn permissions_do_not_pass_to_a_reused_domid(bench: Bench) {
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
    // The store may still list the entry, without effect; only a client of that domain could observe that.
    assert_eq!(
        bench.client.permissions(&bench.at("a")).await.unwrap().first(),
        Some(&Permission::none(0))
    );
    bench.client.release(DOMID).await.unwrap();
}

async fn special_event_can_be_granted_to_other_domains(bench: Bench) {
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
    // xenstored replies with an earlier errno.
    assert!(
        bench
            .client
            .set_permissions(&unknown, &[Permission::none(0)])
            .await
            .is_err()
    );
}
