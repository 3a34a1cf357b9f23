//! Checks of a seed: when failures end, and when all guests are gone.

use std::{rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};
use xenplug_store_server::Stats;
use xenplug_system::simulated::Snapshot;
use xenplug_xenbus::{DeviceKey, Kind};

use super::{
    store::StoreAccess,
    workers::records,
    world::{CreatedDevice, World},
};

/// Longer than the interval of resyncs, on which the daemon relies where events are lost.
const RESYNC_LIMIT: Duration = Duration::from_secs(330);
/// Longer than the longest pause between retries; no resync is needed.
const RETRY_LIMIT: Duration = Duration::from_secs(90);
/// The interval of checks.
const PAUSE: Duration = Duration::from_secs(3);

/// The failure of a handler that came back too late.
const TOO_LATE: &str = ": the kernel came back from a call too late";

/// The state before any device.
pub(super) struct Baseline {
    host: Snapshot,
    stats: Stats,
}

/// The checks of one seed.
pub(super) struct Checker {
    world: Rc<World>,
    store: StoreAccess,
}

impl Checker {
    pub(super) async fn new(world: &Rc<World>) -> Self {
        Self {
            store: StoreAccess::new(world).await,
            world: Rc::clone(world),
        }
    }

    pub(super) fn baseline(&self) -> Baseline {
        Baseline {
            host: self.world.host.snapshot(),
            stats: self.world.server.stats(),
        }
    }

    /// Checks that every wanted device is connected to its own resources or has a reason why not.
    pub(super) async fn all_decided(&self) {
        self.within("undecided", async || self.undecided().await).await;
    }

    /// Checks that nothing is left.
    pub(super) async fn all_gone(&self, baseline: &Baseline) {
        self.within("left", async || self.left(baseline).await).await;
    }

    /// Waits until a check finds nothing any more.
    async fn within(&self, what: &str, check: impl AsyncFn() -> Vec<String>) {
        let lost = self.world.plan.lost > 0;
        let until = Instant::now() + if lost { RESYNC_LIMIT } else { RETRY_LIMIT };
        loop {
            let found = check().await;
            if found.is_empty() {
                return;
            }
            if Instant::now() > until {
                return self.world.wrong(format!("{what}: {}", found.join("; ")));
            }
            sleep(PAUSE).await;
        }
    }

    async fn undecided(&self) -> Vec<String> {
        let wanted = self.world.made.borrow().clone();
        let mut found = Vec::new();
        for (key, made) in &wanted {
            found.extend(self.device(key, made).await);
        }
        for device in self.world.host.loops() {
            let path = device.backing_path.display().to_string();
            if !wanted.values().any(|made| made.params == path) {
                found.push(format!("there is a loop device on {path}, which no device wants"));
            }
        }
        found
    }

    /// Returns what is wrong with a device.
    async fn device(&self, key: &DeviceKey, made: &CreatedDevice) -> Option<String> {
        let backend = self.world.backend(key);
        let node = async |name: &str| self.store.read(&format!("{backend}/{name}")).await.unwrap_or_default();
        let (status, error) = (node("hotplug-status").await, node("hotplug-error").await);
        let wrong = |what: &str| Some(format!("{key}, number {}, {what}", made.number));
        match &*status {
            "connected" if key.kind == Kind::VIF => {
                let links = self.world.host.links();
                let bridge = links.iter().find(|link| link.bridge).map(|bridge| bridge.index);
                let name = self.world.link(key);
                match links.iter().find(|link| link.name == name) {
                    Some(link) if link.master == bridge && link.up => None,
                    Some(_) => wrong("is connected, and its link is not on the bridge"),
                    // If the kernel cannot be asked for it at its adoption, it is not taken from its guest.
                    None if made.harmed && self.world.plan.failing > 0 => None,
                    None => wrong("is connected, and its link is not there"),
                }
            }
            "connected" => {
                let number = node("physical-device").await;
                let of = |minor: u32| format!("7:{minor:x}");
                let loops = self.world.host.loops();
                match loops.iter().find(|device| of(device.number) == number) {
                    Some(device) if device.backing_path.as_os_str() == &*made.params => None,
                    Some(device) => wrong(&format!("is connected to {}", device.backing_path.display())),
                    None => wrong(&format!("is connected to {number}, which is not there")),
                }
            }
            // In dom0 the toolstack knows from the script that failed.
            _ if self.world.plan.mode == xenplug_xenbus::Mode::Dom0 && status != "connected" => None,
            "error" | "busy" if !error.is_empty() && self.may_fail(made) => None,
            // A handler that runs while time jumps is late to the daemon.
            "error" if self.world.jumps.get() > made.jumps && error.ends_with(TOO_LATE) => None,
            _ => wrong(&format!(
                "says {status:?} and {error:?} in state {}",
                node("state").await
            )),
        }
    }

    /// Tests whether there is a reason for a device to fail.
    fn may_fail(&self, made: &CreatedDevice) -> bool {
        made.harmed || self.world.plan.failing + self.world.plan.stuck > 0
    }

    async fn left(&self, baseline: &Baseline) -> Vec<String> {
        let mut left = Vec::new();
        let snapshot = self.world.host.snapshot();
        if snapshot != baseline.host {
            left.push(format!("{snapshot:?} where there was {:?}", baseline.host));
        }
        left.extend(
            records(&self.world.journal())
                .keys()
                .map(|path| format!("{}", path.display())),
        );
        let stats = self.world.server.stats();
        if stats.watches != baseline.stats.watches || stats.transactions != 0 {
            left.push(format!("{stats:?} where there was {:?}", baseline.stats));
        }
        let daemon = self.world.daemon.borrow().upgrade();
        match daemon {
            Some(control) => left.extend(
                control
                    .registry
                    .views()
                    .iter()
                    .map(|(part, view)| format!("{part}: {view:?}")),
            ),
            None => left.push("no daemon".to_owned()),
        }
        let root = format!("/local/domain/{}/backend", self.world.own);
        for kind in self.store.children(&root).await {
            for domain in self.store.children(&format!("{root}/{kind}")).await {
                let path = format!("{root}/{kind}/{domain}");
                left.extend(
                    self.store
                        .children(&path)
                        .await
                        .iter()
                        .map(|devid| format!("{path}/{devid}")),
                );
            }
        }
        left
    }
}
