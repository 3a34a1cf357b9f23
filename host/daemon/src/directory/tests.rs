//! A device's directory on the embedded store: what is found out about the frontend's domain.

use xenplug_xenbus::DomId;
use xenplug_xenstore::{
    Endpoint,
    server::{Options, Server},
};

use super::*;

#[tokio::test]
async fn a_device_is_its_domains_and_shares_with_the_domain_that_one_stands_in_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let _server = Server::bind(&socket, Options::default()).expect("a server");
    let client = Client::connect(Endpoint::Socket(socket)).await.expect("a connection");
    let write = async |path: &str, value: &str| {
        client
            .write(&path.parse().expect("a path"), value)
            .await
            .expect("written");
    };
    write("/local/domain/0/backend/vbd/3/51712/state", "2").await;
    write("/local/domain/3/target", "2").await;
    write("/local/domain/2/vm", "/vm/two").await;
    let path = BackendPath {
        backend: DomId(0),
        key: "vbd/3/51712".parse().expect("a device"),
    };
    let domains = Arc::new(Domains::new(client.clone()));
    let (system, services) = (System::simulated().0, Arc::default());
    let directory = Directory::new(client.clone(), system, domains, services, path, Role::Paravirtual);

    // Its own `vm` cannot be read: that of the domain it stands in for is not taken for it.
    let (observation, snapshot) = directory.examine().await.expect("a look");
    assert_eq!(observation.identity.vm, None);
    assert_eq!(observation, directory.look().await.expect("a look"));
    assert_eq!(snapshot.expect("it is there").vms, ["/vm/two"]);
    assert_eq!(directory.vm_name().await, None);

    write("/local/domain/3/vm", "/vm/three-1").await;
    write("/local/domain/3/name", "web").await;
    let (observation, snapshot) = directory.examine().await.expect("a look");
    assert_eq!(observation.identity.vm.as_deref(), Some("/vm/three"));
    assert_eq!(observation, directory.look().await.expect("a look"));
    assert_eq!(snapshot.expect("it is there").vms, ["/vm/three", "/vm/two"]);
    assert_eq!(directory.vm_name().await.as_deref(), Some("web"));
}
