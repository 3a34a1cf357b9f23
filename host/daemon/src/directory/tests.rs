//! A device's directory on the embedded store.

use xenplug_store_server::{Options, Server};
use xenplug_system::simulated::SimHost as Simulated;
use xenplug_xenbus::{DomId, Mode, RecoveredState};

use super::*;

/// A store, a machine, and a device that no toolstack asked for by `/hotplug`.
struct Scene {
    _store: Server,
    client: Client,
    machine: Arc<Simulated>,
    directory: Directory,
}

impl Scene {
    async fn of(device: &str, nodes: &[(&str, &str)]) -> Self {
        let store = Server::new(Options::default());
        let endpoint = store.transport(0, None).endpoint();
        let client = Client::connect(endpoint).await.expect("a connection");
        let (system, machine) = Platform::simulated();
        let means = StoreContext {
            client: client.clone(),
            system,
            domains: Arc::new(Domains::new(client.clone())),
            requests: Arc::default(),
            shared: Arc::default(),
        };
        let path = BackendPath {
            backend: DomId(0),
            key: device.parse().expect("a device"),
        };
        let scene = Self {
            _store: store,
            client,
            machine,
            directory: Directory::new(means, path, VifType::Paravirtual),
        };
        scene.write(nodes).await;
        scene
    }

    /// Writes nodes of the device's directory, or with a whole path others.
    async fn write(&self, nodes: &[(&str, &str)]) {
        for (name, value) in nodes {
            self.client.write(&self.path(name), value).await.expect("written");
        }
    }

    async fn read(&self, name: &str) -> Option<String> {
        let value = self.client.read(&self.path(name)).await.ok()?;
        Some(String::from_utf8(value).expect("text"))
    }

    fn path(&self, name: &str) -> Path {
        if name.starts_with('/') {
            return name.parse().expect("a path");
        }
        self.directory.node(name)
    }

    /// What a look finds, and what marks the device then.
    async fn examined(&self) -> (Observation, Snapshot, Fingerprint) {
        let (seen, snapshot) = self.directory.snapshot().await.expect("a look");
        assert_eq!(seen, self.directory.read_state().await.expect("a look"));
        let snapshot = snapshot.expect("it is there");
        let marks = Fingerprint::of(self.directory.link(), &snapshot.nodes);
        (seen, snapshot, marks)
    }

    async fn publish(&self, identity: &Identity, marks: &Fingerprint) -> WriteOutcome {
        let connection = Connection::default();
        let published = self.directory.publish(identity, marks, &connection).await;
        published.expect("the store answers")
    }
}

#[tokio::test]
async fn a_card_whose_link_has_gone_is_not_published_as_connected() {
    let nodes = [("state", "2"), ("online", "1"), ("bridge", "xenbr0")];
    let scene = Scene::of("vif/3/0", &nodes).await;
    let name = "vif3.0".parse().expect("a name");
    let index = scene.machine.add_link(&name);
    let (seen, _, mut marks) = scene.examined().await;
    assert_eq!(marks.link, Some(index));
    // The card is made anew, with the same nodes, while its handler runs: its link has the name alone in common.
    scene.machine.remove_link(&name);
    let index = [index, scene.machine.add_link(&name)];
    assert_ne!(index[0], index[1]);
    for (expected, index) in [WriteOutcome::Stale, WriteOutcome::Done].into_iter().zip(index) {
        marks.link = Some(index);
        assert_eq!(scene.publish(&seen.identity, &marks).await, expected);
    }
}

#[tokio::test]
async fn what_failed_is_told_of_the_device_that_failed_and_of_none_that_was_made_anew() {
    let nodes = [("state", "2"), ("online", "1"), ("params", "/srv/a.img")];
    let scene = Scene::of("vbd/3/51712", &nodes).await;
    let (seen, _, marks) = scene.examined().await;
    let tell = async |found, marks| {
        let machine = DeviceFsm::adopted(Mode::DriverDomain, seen.identity.clone(), found);
        let directory = &scene.directory;
        let told = directory.publish_failure(&machine, marks, "error", "there is no such file");
        told.await.expect("the store answers")
    };

    // By what it calls for.
    scene.write(&[("params", "/srv/b.img")]).await;
    assert_eq!(tell(RecoveredState::Unfinished, &marks).await, WriteOutcome::Stale);
    scene.write(&[("params", "/srv/a.img")]).await;
    assert_eq!(tell(RecoveredState::Unfinished, &marks).await, WriteOutcome::Done);

    // By what was written there, if it was connected.
    let unmarked = Fingerprint::default();
    for (status, expected) in [
        ("", WriteOutcome::Stale),
        ("connected", WriteOutcome::Done),
        ("error", WriteOutcome::Done),
    ] {
        scene.write(&[("hotplug-status", status), ("hotplug-error", "")]).await;
        let told = tell(RecoveredState::Lost, &unmarked).await;
        assert_eq!(told, expected, "{status:?}");
        let error = scene.read("hotplug-error").await.expect("it is there");
        assert_eq!(!error.is_empty(), expected == WriteOutcome::Done, "{status:?}");
    }

    // And is told no longer once it is connected.
    let (seen, _, marks) = scene.examined().await;
    assert_eq!(scene.publish(&seen.identity, &marks).await, WriteOutcome::Done);
    assert_eq!(scene.read("hotplug-error").await, None);
}

#[tokio::test]
async fn what_nobody_has_taken_up_is_taken_back_with_its_number() {
    let scene = Scene::of("vbd/3/51712", &[("online", "1")]).await;
    const CAUSE: &str = "the loop device is gone";
    for (state, lost, done) in [("4", Some(CAUSE), false), ("1", None, true), ("2", Some(CAUSE), true)] {
        let nodes = [("state", state), ("physical-device", "7:0")];
        scene.write(&nodes).await;
        scene.write(&[("hotplug-status", "connected")]).await;
        let (seen, ..) = scene.examined().await;
        let retracted = scene.directory.retract(&seen.identity, lost).await;
        let expected = if done { WriteOutcome::Done } else { WriteOutcome::Stale };
        assert_eq!(retracted.expect("the store answers"), expected, "in state {state}");
        let number = scene.read("physical-device").await;
        assert_eq!(number.is_none(), done, "in state {state}");
        let says = match lost {
            _ if !done => HotplugStatus::Connected,
            Some(_) => HotplugStatus::Error,
            None => HotplugStatus::None,
        };
        assert_eq!(scene.examined().await.0.status, says, "in state {state}");
        let told = scene.read("hotplug-error").await;
        assert_eq!(told.as_deref(), lost.filter(|_| done), "in state {state}");
    }
}

#[tokio::test]
async fn a_device_is_its_domains_and_shares_with_the_domain_that_one_stands_in_for() {
    let scene = Scene::of("vbd/3/51712", &[("state", "2")]).await;
    let of_domains = [("/local/domain/3/target", "2"), ("/local/domain/2/vm", "/vm/two")];
    scene.write(&of_domains).await;

    // Its own `vm` cannot be read: that of the domain it stands in for is not taken for it.
    let (seen, snapshot, _) = scene.examined().await;
    assert_eq!(seen.identity.vm, None);
    assert_eq!(snapshot.vms, ["/vm/two"]);
    assert_eq!(scene.directory.vm_name().await, None);

    let of_domain = [("/local/domain/3/vm", "/vm/three-1"), ("/local/domain/3/name", "web")];
    scene.write(&of_domain).await;
    let (seen, snapshot, _) = scene.examined().await;
    assert_eq!(seen.identity.vm.as_deref(), Some("/vm/three"));
    assert_eq!(snapshot.vms, ["/vm/three", "/vm/two"]);
    assert_eq!(scene.directory.vm_name().await.as_deref(), Some("web"));
}
