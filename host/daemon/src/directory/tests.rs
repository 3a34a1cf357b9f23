//! A device's directory on the embedded store: what is found out about the frontend's domain.

use xenplug_xenbus::{Adopted, DomId, Mode};
use xenplug_xenstore::{
    Endpoint,
    server::{Options, Server},
};

use super::*;

/// The directory of a device that no toolstack asked for by `/hotplug`.
fn directory(client: &Client, system: System, path: BackendPath) -> Directory {
    let domains = Arc::new(Domains::new(client.clone()));
    let (requests, claims) = (Arc::default(), Arc::default());
    Directory::new(
        client.clone(),
        system,
        domains,
        requests,
        claims,
        path,
        Role::Paravirtual,
    )
}

#[tokio::test]
async fn a_card_whose_link_has_gone_is_not_published_as_connected() {
    let server = Server::new(Options::default());
    let place = Endpoint::Memory(server.place(0, None));
    let client = Client::connect(place).await.expect("a connection");
    let path = BackendPath {
        backend: DomId(0),
        key: "vif/3/0".parse().expect("a device"),
    };
    for (name, value) in [("state", "2"), ("online", "1"), ("bridge", "xenbr0")] {
        let node = path.node(name).parse().expect("a path");
        client.write(&node, value).await.expect("written");
    }
    let (system, machine) = System::simulated();
    let name = "vif3.0".parse().expect("a name");
    let index = machine.add_link(&name);
    let directory = directory(&client, system, path);
    let (seen, snapshot) = directory.examine().await.expect("a look");
    let nodes = snapshot.expect("it is there").nodes;
    let mut marks = Marks::of(directory.link(), &nodes);
    assert_eq!(marks.link, Some(index));
    // The card is made anew, with the same nodes, while its handler runs: its link has the name alone in common.
    machine.remove_link(&name);
    let index = [index, machine.add_link(&name)];
    assert_ne!(index[0], index[1]);
    for (expected, index) in [Published::Stale, Published::Done].into_iter().zip(index) {
        marks.link = Some(index);
        let connection = Connection::default();
        let published = directory.publish(&seen.identity, &marks, &connection).await;
        assert_eq!(published.expect("the store answers"), expected);
    }
}

#[tokio::test]
async fn what_failed_is_told_of_the_device_that_failed_and_of_none_that_was_made_anew() {
    let server = Server::new(Options::default());
    let client = Client::connect(Endpoint::Memory(server.place(0, None))).await;
    let client = client.expect("a connection");
    let path = BackendPath {
        backend: DomId(0),
        key: "vbd/3/51712".parse().expect("a device"),
    };
    let node = |name: &str| path.node(name).parse::<Path>().expect("a path");
    let write = async |name: &str, value: &str| client.write(&node(name), value).await.expect("written");
    let directory = directory(&client, System::simulated().0, path.clone());
    for (name, value) in [("state", "2"), ("online", "1"), ("params", "/srv/a.img")] {
        write(name, value).await;
    }
    let (seen, snapshot) = directory.examine().await.expect("a look");
    let marks = Marks::of(directory.link(), &snapshot.expect("it is there").nodes);
    let tell = async |found, marks| {
        let machine = Machine::adopted(Mode::DriverDomain, seen.identity.clone(), found);
        let told = directory.publish_failure(&machine, marks, "error", "there is no such file");
        told.await.expect("the store answers")
    };

    // By what it asks for.
    write("params", "/srv/b.img").await;
    assert_eq!(tell(Adopted::Unfinished, &marks).await, Published::Stale);
    write("params", "/srv/a.img").await;
    assert_eq!(tell(Adopted::Unfinished, &marks).await, Published::Done);

    // By what was written there, if it was connected.
    let unknown = Marks::default();
    for (status, expected) in [
        ("", Published::Stale),
        ("connected", Published::Done),
        ("error", Published::Done),
    ] {
        write("hotplug-status", status).await;
        write("hotplug-error", "").await;
        assert_eq!(tell(Adopted::Lost, &unknown).await, expected, "{status:?}");
        let told = client.read(&node("hotplug-error")).await.expect("it is there");
        assert_eq!(!told.is_empty(), expected == Published::Done, "{status:?}");
    }

    // And is told no longer once it is connected.
    let (seen, snapshot) = directory.examine().await.expect("a look");
    let marks = Marks::of(None, &snapshot.expect("it is there").nodes);
    let connection = Connection::default();
    let published = directory.publish(&seen.identity, &marks, &connection).await;
    assert_eq!(published.expect("the store answers"), Published::Done);
    let left = client.read(&node("hotplug-error")).await.expect_err("it is not there");
    assert!(left.is_not_found(), "{left}");
}

#[tokio::test]
async fn what_nobody_has_taken_up_is_taken_back_with_its_number() {
    let server = Server::new(Options::default());
    let client = Client::connect(Endpoint::Memory(server.place(0, None))).await;
    let client = client.expect("a connection");
    let path = BackendPath {
        backend: DomId(0),
        key: "vbd/3/51712".parse().expect("a device"),
    };
    let node = |name: &str| path.node(name).parse::<Path>().expect("a path");
    let directory = directory(&client, System::simulated().0, path.clone());
    for (state, lost, expected) in [
        ("4", Some("the loop device is gone"), Published::Stale),
        ("1", None, Published::Done),
        ("2", Some("the loop device is gone"), Published::Done),
    ] {
        for (name, value) in [
            ("state", state),
            ("online", "1"),
            ("physical-device", "7:0"),
            ("hotplug-status", "connected"),
        ] {
            client.write(&node(name), value).await.expect("written");
        }
        let seen = directory.look().await.expect("a look");
        let retracted = directory.retract(&seen.identity, lost).await;
        assert_eq!(retracted.expect("the store answers"), expected, "in state {state}");
        let number = client.read(&node("physical-device")).await.ok();
        assert_eq!(number.is_none(), expected == Published::Done, "in state {state}");
        let status = directory.look().await.expect("a look").status;
        let told = client.read(&node("hotplug-error")).await.ok();
        let says = match (expected, lost) {
            (Published::Done, Some(_)) => HotplugStatus::Error,
            (Published::Done, None) => HotplugStatus::None,
            _ => HotplugStatus::Connected,
        };
        assert_eq!(status, says, "in state {state}");
        let cause = lost.filter(|_| expected == Published::Done).map(str::as_bytes);
        assert_eq!(told.as_deref(), cause, "in state {state}");
    }
}

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
    let directory = directory(&client, System::simulated().0, path);

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
