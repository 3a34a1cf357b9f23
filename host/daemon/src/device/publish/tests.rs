//! A device's directory on the in-memory store.

use std::sync::Arc;

use xenplug_store_server::{Options, Server};
use xenplug_system::{Platform, simulated::SimHost};
use xenplug_xenbus::{BackendPath, DomId, Mode, RecoveredState};
use xenplug_xenstore::Client;

use super::*;
use crate::{
    device::observe::{Snapshot, StoreContext},
    domains::Domains,
};

/// A store, a simulated host, and a device without a request.
struct Fixture {
    _store: Server,
    client: Client,
    host: Arc<SimHost>,
    directory: Directory,
}

impl Fixture {
    async fn of(device: &str, nodes: &[(&str, &str)]) -> Self {
        let store = Server::new(Options::default());
        let endpoint = store.transport(0, None).endpoint();
        let client = Client::connect(endpoint).await.expect("a connection");
        let (platform, host) = Platform::simulated();
        let context = StoreContext {
            store: client.clone(),
            platform,
            domains: Arc::new(Domains::new(client.clone())),
            requests: Arc::default(),
            shared: Arc::default(),
        };
        let path = BackendPath {
            backend: DomId(0),
            key: device.parse().expect("a device"),
        };
        let fixture = Self {
            _store: store,
            client,
            host,
            directory: Directory::new(context, path, VifType::Paravirtual),
        };
        fixture.write(nodes).await;
        fixture
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

    /// Reads the device in both ways, and takes its fingerprint.
    async fn snapshot(&self) -> (Observation, Snapshot, Fingerprint) {
        let (seen, snapshot) = self.directory.snapshot().await.expect("the store answers");
        assert_eq!(seen, self.directory.read_state().await.expect("the store answers"));
        let snapshot = snapshot.expect("it is there");
        let fingerprint = Fingerprint::of(self.directory.link(), &snapshot.nodes);
        (seen, snapshot, fingerprint)
    }

    async fn publish(&self, identity: &Identity, fingerprint: &Fingerprint) -> WriteOutcome {
        let connection = Connection::default();
        let published = self.directory.publish(identity, fingerprint, &connection).await;
        published.expect("the store answers")
    }
}

#[tokio::test]
async fn vif_whose_link_is_gone_is_not_published() {
    let nodes = [("state", "2"), ("online", "1"), ("bridge", "xenbr0")];
    let fixture = Fixture::of("vif/3/0", &nodes).await;
    let name = "vif3.0".parse().expect("a name");
    let index = fixture.host.add_link(&name);
    let (seen, _, mut fingerprint) = fixture.snapshot().await;
    assert_eq!(fingerprint.link, Some(index));
    // The vif is recreated with the same nodes while its handler runs: only the name of its link stays.
    fixture.host.remove_link(&name);
    let index = [index, fixture.host.add_link(&name)];
    assert_ne!(index[0], index[1]);
    for (expected, index) in [WriteOutcome::Stale, WriteOutcome::Done].into_iter().zip(index) {
        fingerprint.link = Some(index);
        assert_eq!(fixture.publish(&seen.identity, &fingerprint).await, expected);
    }
}

#[tokio::test]
async fn failure_is_not_published_for_a_recreated_device() {
    let nodes = [("state", "2"), ("online", "1"), ("params", "/srv/a.img")];
    let fixture = Fixture::of("vbd/3/51712", &nodes).await;
    let (seen, _, fingerprint) = fixture.snapshot().await;
    let publish_failure = async |found, fingerprint| {
        let fsm = DeviceFsm::adopted(Mode::DriverDomain, seen.identity.clone(), found);
        let directory = &fixture.directory;
        let written = directory.publish_failure(&fsm, fingerprint, "error", "there is no such file");
        written.await.expect("the store answers")
    };

    // The wanted nodes distinguish it.
    fixture.write(&[("params", "/srv/b.img")]).await;
    assert_eq!(
        publish_failure(RecoveredState::Unfinished, &fingerprint).await,
        WriteOutcome::Stale
    );
    fixture.write(&[("params", "/srv/a.img")]).await;
    assert_eq!(
        publish_failure(RecoveredState::Unfinished, &fingerprint).await,
        WriteOutcome::Done
    );

    // The status distinguishes it, if it was connected.
    let no_fingerprint = Fingerprint::default();
    for (status, expected) in [
        ("", WriteOutcome::Stale),
        ("connected", WriteOutcome::Done),
        ("error", WriteOutcome::Done),
    ] {
        fixture
            .write(&[("hotplug-status", status), ("hotplug-error", "")])
            .await;
        let written = publish_failure(RecoveredState::Lost, &no_fingerprint).await;
        assert_eq!(written, expected, "{status:?}");
        let error = fixture.read("hotplug-error").await.expect("it is there");
        assert_eq!(!error.is_empty(), expected == WriteOutcome::Done, "{status:?}");
    }

    // It is removed when the device is connected.
    let (seen, _, fingerprint) = fixture.snapshot().await;
    assert_eq!(fixture.publish(&seen.identity, &fingerprint).await, WriteOutcome::Done);
    assert_eq!(fixture.read("hotplug-error").await, None);
}

#[tokio::test]
async fn unused_connection_is_withdrawn_with_its_number() {
    let fixture = Fixture::of("vbd/3/51712", &[("online", "1")]).await;
    const CAUSE: &str = "the loop device is gone";
    for (state, lost, done) in [("4", Some(CAUSE), false), ("1", None, true), ("2", Some(CAUSE), true)] {
        let nodes = [("state", state), ("physical-device", "7:0")];
        fixture.write(&nodes).await;
        fixture.write(&[("hotplug-status", "connected")]).await;
        let (seen, ..) = fixture.snapshot().await;
        let withdrawn = fixture.directory.withdraw(&seen.identity, lost).await;
        let expected = if done { WriteOutcome::Done } else { WriteOutcome::Stale };
        assert_eq!(withdrawn.expect("the store answers"), expected, "in state {state}");
        let number = fixture.read("physical-device").await;
        assert_eq!(number.is_none(), done, "in state {state}");
        let says = match lost {
            _ if !done => HotplugStatus::Connected,
            Some(_) => HotplugStatus::Error,
            None => HotplugStatus::None,
        };
        assert_eq!(fixture.snapshot().await.0.status, says, "in state {state}");
        let written = fixture.read("hotplug-error").await;
        assert_eq!(written.as_deref(), lost.filter(|_| done), "in state {state}");
    }
}

#[tokio::test]
async fn stub_domain_device_shares_the_vm_of_its_target() {
    let fixture = Fixture::of("vbd/3/51712", &[("state", "2")]).await;
    let of_domains = [("/local/domain/3/target", "2"), ("/local/domain/2/vm", "/vm/two")];
    fixture.write(&of_domains).await;

    // Its own `vm` cannot be read: the target's is not taken for it.
    let (seen, snapshot, _) = fixture.snapshot().await;
    assert_eq!(seen.identity.vm, None);
    assert_eq!(snapshot.vms, ["/vm/two"]);
    assert_eq!(fixture.directory.vm_name().await, None);

    let of_domain = [("/local/domain/3/vm", "/vm/three-1"), ("/local/domain/3/name", "web")];
    fixture.write(&of_domain).await;
    let (seen, snapshot, _) = fixture.snapshot().await;
    assert_eq!(seen.identity.vm.as_deref(), Some("/vm/three"));
    assert_eq!(snapshot.vms, ["/vm/three", "/vm/two"]);
    assert_eq!(fixture.directory.vm_name().await.as_deref(), Some("web"));
}
