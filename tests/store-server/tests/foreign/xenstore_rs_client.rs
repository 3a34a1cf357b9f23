//! xenstore-rs: its two clients on the server, and its traits on the client.

use std::{env, pin::Pin, time::Duration};

use futures_core::Stream;
use tokio::process::Command;
use xenplug_xenstore::{Endpoint, Path};
use xenstore_rs::{AsyncWatch, AsyncXs, Xs, tokio::XsTokio, unix::XsUnix};

use super::Store;

#[tokio::test]
async fn traits_work_on_the_client() {
    let store = Store::start();
    uses_the_traits(&store.connect().await).await;
}

/// Runs each client in a process of its own, since they take the socket from the environment only.
#[tokio::test]
async fn foreign_clients_work_with_the_server() {
    let store = Store::start();
    for peer in ["foreign_asynchronous_client", "foreign_blocking_client"] {
        let name = format!("xenstore_rs_client::{peer}");
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", &name, "--ignored", "--nocapture"])
            .env("XENSTORED_PATH", store.socket())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
    let left = store.connect().await.directory(&Path::root()).await.unwrap();
    assert_eq!(left, ["tool"]);
}

#[tokio::test]
#[ignore = "run by foreign_clients_work_with_the_server"]
async fn foreign_asynchronous_client() {
    assert_ne!(Endpoint::from_env(), Endpoint::Device("/dev/xen/xenbus".into()));
    uses_the_traits(&XsTokio::new().await.unwrap()).await;
}

#[test]
#[ignore = "run by foreign_clients_work_with_the_server"]
fn foreign_blocking_client() {
    let client = XsUnix::new().unwrap();
    client.write("/blocking/a", "1").unwrap();
    assert_eq!(&*client.read("/blocking/a").unwrap(), "1");
    assert_eq!(client.directory("/blocking").unwrap(), ["a".into()]);
    client.rm("/blocking").unwrap();
    assert!(client.read("/blocking/a").is_err());
}

async fn uses_the_traits(client: &(impl AsyncXs + AsyncWatch)) {
    client.write("/traits/a", "1").await.unwrap();
    client.write("/traits/b", "").await.unwrap();
    assert_eq!(&*client.read("/traits/a").await.unwrap(), "1");
    assert_eq!(client.directory("/traits").await.unwrap(), ["a".into(), "b".into()]);
    assert_eq!(
        client.read("/traits/c").await.unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );

    let mut changes = client.watch("/traits").await.unwrap();
    assert_eq!(&*next(&mut changes).await, "/traits");
    client.write("/traits/a", "2").await.unwrap();
    assert_eq!(&*next(&mut changes).await, "/traits/a");
    client.rm("/traits").await.unwrap();
    assert_eq!(&*next(&mut changes).await, "/traits");
}

async fn next(changes: &mut (impl Stream<Item = Box<str>> + Unpin)) -> Box<str> {
    let next = std::future::poll_fn(|context| Pin::new(&mut *changes).poll_next(context));
    tokio::time::timeout(Duration::from_secs(5), next)
        .await
        .unwrap()
        .unwrap()
}
