//! What must be so when the storm is over, and when all is gone.

use std::{rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};
use xenplug_store_server::Stats;
use xenplug_system::simulated::Snapshot;
use xenplug_xenbus::{DeviceKey, Kind};

use super::{
    hand::Hand,
    workers::records,
    world::{Made, World},
};

/// Longer than the daemon goes without looking at everything, as it has to where events were lost.
const PATIENCE: Duration = Duration::from_secs(330);
/// Longer than the daemon waits before it tries again by itself; no reason to wait for a look at everything.
const ALERT: Duration = Duration::from_secs(90);
/// How often to look.
const PAUSE: Duration = Duration::from_secs(3);

/// What is told of a handler that time overtook.
const TOO_LATE: &str = ": the kernel came back from a call too late";

/// How it was before any device.
pub(super) struct Baseline {
    machine: Snapshot,
    stats: Stats,
}

/// Who looks.
pub(super) struct Judge {
    world: Rc<World>,
    hand: Hand,
}

impl Judge {
    pub(super) async fn new(world: &Rc<World>) -> Self {
        Self {
            hand: Hand::new(world).await,
            world: Rc::clone(world),
        }
    }

    pub(super) fn baseline(&self) -> Baseline {
        Baseline {
            machine: self.world.machine.snapshot(),
            stats: self.world.server.stats(),
        }
    }

    /// Every device that there is to be comes to be connected, or to say why not, and nobody has another's.
    pub(super) async fn all_decided(&self) {
        self.within("what is not decided", async || self.undecided().await)
            .await;
    }

    /// Nothing is left.
    pub(super) async fn all_gone(&self, baseline: &Baseline) {
        self.within("what is left", async || self.left(baseline).await).await;
    }

    /// Waits until there is nothing to tell any more.
    async fn within(&self, what: &str, look: impl AsyncFn() -> Vec<String>) {
        let lost = self.world.plan.lost > 0;
        let until = Instant::now() + if lost { PATIENCE } else { ALERT };
        loop {
            let told = look().await;
            if told.is_empty() {
                return;
            }
            if Instant::now() > until {
                return self.world.wrong(format!("{what}: {}", told.join("; ")));
            }
            sleep(PAUSE).await;
        }
    }

    async fn undecided(&self) -> Vec<String> {
        let wanted = self.world.made.borrow().clone();
        let mut told = Vec::new();
        for (key, made) in &wanted {
            told.extend(self.device(key, made).await);
        }
        for device in self.world.machine.loops() {
            let path = device.backing_path.display().to_string();
            if !wanted.values().any(|made| made.params == path) {
                told.push(format!("there is a loop device on {path}, which nobody wants"));
            }
        }
        told
    }

    /// What is not yet as it should be with a device.
    async fn device(&self, key: &DeviceKey, made: &Made) -> Option<String> {
        let backend = self.world.backend(key);
        let node = async |name: &str| self.hand.read(&format!("{backend}/{name}")).await.unwrap_or_default();
        let (status, error) = (node("hotplug-status").await, node("hotplug-error").await);
        let tell = |what: &str| Some(format!("{key}, number {}, {what}", made.number));
        match &*status {
            "connected" if key.kind == Kind::VIF => {
                let links = self.world.machine.links();
                let bridge = links.iter().find(|link| link.bridge).map(|bridge| bridge.index);
                let name = self.world.link(key);
                match links.iter().find(|link| link.name == name) {
                    Some(link) if link.master == bridge && link.up => None,
                    Some(_) => tell("is connected, and its link is not on the bridge"),
                    // Nor could the kernel be asked for it when it was adopted: then it is not taken from its guest.
                    None if made.harmed && self.world.plan.failing > 0 => None,
                    None => tell("is connected, and its link is not there"),
                }
            }
            "connected" => {
                let number = node("physical-device").await;
                let of = |minor: u32| format!("7:{minor:x}");
                let loops = self.world.machine.loops();
                match loops.iter().find(|device| of(device.number) == number) {
                    Some(device) if device.backing_path.as_os_str() == &*made.params => None,
                    Some(device) => tell(&format!("is connected to {}", device.backing_path.display())),
                    None => tell(&format!("is connected to {number}, which is not there")),
                }
            }
            // In dom0 a script that failed has told its toolstack.
            _ if self.world.plan.mode == xenplug_xenbus::Mode::Dom0 && status != "connected" => None,
            "error" | "busy" if !error.is_empty() && self.may_fail(made) => None,
            // To the daemon a handler is late that runs while time jumps.
            "error" if self.world.jumps.get() > made.jumps && error.ends_with(TOO_LATE) => None,
            _ => tell(&format!(
                "says {status:?} and {error:?} in state {}",
                node("state").await
            )),
        }
    }

    /// Whether there is a reason for a device not to come.
    fn may_fail(&self, made: &Made) -> bool {
        made.harmed || self.world.plan.failing + self.world.plan.held_up > 0
    }

    async fn left(&self, baseline: &Baseline) -> Vec<String> {
        let mut left = Vec::new();
        let snapshot = self.world.machine.snapshot();
        if snapshot != baseline.machine {
            left.push(format!("{snapshot:?} where there was {:?}", baseline.machine));
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
        for kind in self.hand.children(&root).await {
            for domain in self.hand.children(&format!("{root}/{kind}")).await {
                let path = format!("{root}/{kind}/{domain}");
                left.extend(
                    self.hand
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
