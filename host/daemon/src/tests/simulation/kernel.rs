//! The kernel of the backends' domain: blkback and netback, as far as hotplug is concerned
//! (linux/drivers/block/xen-blkback/xenbus.c, linux/drivers/net/xen-netback/xenbus.c).

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use xenplug_system::network::IfName;
use xenplug_xenbus::{BackendPath, DeviceKey, Kind};

use super::{
    chance::Chance,
    store::{StoreAccess, at},
    world::World,
};

/// A backend driver's state for a device.
#[derive(Debug, Default)]
struct Probed {
    /// The open loop device.
    opened: Option<u32>,
    link: Option<IfName>,
}

struct Kernel {
    world: Rc<World>,
    store: StoreAccess,
    chance: Chance,
    probed: BTreeMap<DeviceKey, Probed>,
}

/// Runs until the end of the seed.
pub(super) async fn run(world: Rc<World>, end: CancellationToken) {
    let store = StoreAccess::new(&world).await;
    let mut watch = store.watch("/local/domain").await;
    let mut kernel = Kernel {
        chance: Chance::of(world.seed, "kernel"),
        world,
        store,
        probed: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            biased;
            () = end.cancelled() => return,
            _ = watch.next() => {}
        }
        sleep(kernel.chance.upto(kernel.world.plan.others)).await;
        while watch.try_next().is_some() {}
        for key in kernel.devices().await {
            kernel.step(key).await;
        }
    }
}

impl Kernel {
    /// Lists the known devices, and those in the store.
    async fn devices(&self) -> BTreeSet<DeviceKey> {
        let mut keys: BTreeSet<DeviceKey> = self.probed.keys().cloned().collect();
        let root = format!("/local/domain/{}/backend", self.world.own);
        for kind in self.store.children(&root).await {
            for domain in self.store.children(&format!("{root}/{kind}")).await {
                for devid in self.store.children(&format!("{root}/{kind}/{domain}")).await {
                    keys.insert(format!("{kind}/{domain}/{devid}").parse().expect("a device"));
                }
            }
        }
        keys
    }

    async fn step(&mut self, key: DeviceKey) {
        let backend = self.world.backend(&key);
        let nodes = self
            .store
            .client()
            .snapshot(&at(&backend))
            .await
            .expect("it can be read");
        let Some(nodes) = nodes else {
            return self.unregister(&key);
        };
        let node = |name: &str| {
            let value = nodes.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
            value.unwrap_or_default()
        };
        if !nodes.contains_key("frontend") {
            let names: Vec<_> = nodes.keys().collect();
            self.world.wrong(format!(
                "{key} was written to after its directory was removed: {names:?}"
            ));
            return;
        }
        let frontend = BackendPath {
            backend: self.world.own,
            key: key.clone(),
        }
        .frontend_path();
        let frontend = self.store.number(&format!("{frontend}/state")).await;
        let (state, online) = (node("state"), node("online") != "0");
        match (&*state, frontend) {
            ("1", _) => self.probe(&key).await,
            ("2" | "4", _) if self.ready(&key, &node) && state == "2" && matches!(frontend, 3 | 4) => {
                self.switch(&key, "2", "4").await;
            }
            ("6", 1) if online => self.switch(&key, "6", "2").await,
            _ => {}
        }
        match (&*state, frontend) {
            ("1", _) => {}
            ("2" | "3" | "4", 5) => self.switch(&key, &state, "5").await,
            ("2" | "3" | "4" | "5", 0 | 6) => self.switch(&key, &state, "6").await,
            ("6", 0 | 6) if !online => self.unregister(&key),
            _ => {}
        }
    }

    /// Handles a new device.
    async fn probe(&mut self, key: &DeviceKey) {
        self.unregister(key);
        let mut probed = Probed::default();
        self.switch(key, "1", "2").await;
        if key.kind == Kind::VIF {
            // It announces itself before it creates its link.
            sleep(self.chance.upto(self.world.plan.others)).await;
            let link = self.world.link(key);
            self.world.host.add_link(&link);
            self.world.workers.appeared(&link);
            probed.link = Some(link);
        }
        self.probed.insert(key.clone(), probed);
    }

    /// Tests whether the hotplug setup of a device is complete.
    fn ready(&mut self, key: &DeviceKey, node: &impl Fn(&str) -> String) -> bool {
        if key.kind == Kind::VIF {
            return node("hotplug-status") == "connected";
        }
        let Some(probed) = self.probed.get_mut(key) else {
            return false;
        };
        if probed.opened.is_none() {
            let number = node("physical-device");
            let Some((_, minor)) = number.split_once(':') else {
                return false;
            };
            let minor = u32::from_str_radix(minor, 16).expect("a hexadecimal number");
            let loops = self.world.host.loops();
            match loops.iter().find(|device| device.number == minor) {
                Some(device) if device.backing_path.as_os_str() == &*node("params") => {}
                // It does not open an absent device.
                None => return false,
                Some(device) => {
                    let (found, params) = (device.backing_path.display(), node("params"));
                    self.world
                        .wrong(format!("{key} is {params}, and blkback opens {found}"));
                }
            }
            self.world.host.open_loop(minor);
            probed.opened = Some(minor);
        }
        true
    }

    async fn switch(&self, key: &DeviceKey, from: &str, to: &str) {
        let state = format!("{}/state", self.world.backend(key));
        if self.store.write_if((&state, from), (&state, to)).await {
            self.world.say(format!("{key} goes from {from} to {to}"));
        }
    }

    fn unregister(&mut self, key: &DeviceKey) {
        let Some(probed) = self.probed.remove(key) else { return };
        self.world.say(format!("{key} is unregistered"));
        if let Some(number) = probed.opened {
            self.world.host.close_loop(number);
        }
        if let Some(link) = probed.link {
            self.world.host.remove_link(&link);
        }
    }
}
