//! Frontends of guests: one that connects, one that is slow, one that reconnects, and one that never answers.

use std::rc::Rc;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use xenplug_xenbus::{BackendPath, DeviceKey};

use super::{chance::Chance, store::StoreAccess, world::World};

/// The behaviour of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Regular,
    Slow,
    Reconnecting,
    Silent,
}

/// Plays a frontend until its guest dies.
pub(super) async fn frontend(
    world: Rc<World>,
    store: StoreAccess,
    key: DeviceKey,
    behaviour: Behaviour,
    dead: CancellationToken,
) {
    if behaviour == Behaviour::Silent {
        return;
    }
    let chance = Chance::of(world.seed, &format!("frontend {key} {}", world.count.get()));
    let backend = format!("{}/state", world.backend(&key));
    let path = BackendPath {
        backend: world.own,
        key: key.clone(),
    };
    let own = format!("{}/state", path.frontend_path());
    let mut watch = store.watch(&backend).await;
    let slow = if behaviour == Behaviour::Slow {
        15_000
    } else {
        world.plan.others
    };
    let mut reconnect_at = None;
    loop {
        let far = Instant::now() + std::time::Duration::from_secs(3600);
        let reconnects = tokio::select! {
            biased;
            () = dead.cancelled() => return,
            _ = watch.next() => false,
            () = sleep_until(reconnect_at.unwrap_or(far)) => true,
        };
        tokio::select! {
            biased;
            () = dead.cancelled() => return,
            () = sleep(chance.upto(slow)) => {}
        }
        let (theirs, ours) = (store.number(&backend).await, store.number(&own).await);
        if reconnects {
            reconnect_at = None;
        }
        let next = match (theirs, ours) {
            (2, 1) => "3",
            (4, 3) => "4",
            // It closes by itself, like a guest that starts another kernel.
            (4, 4) if reconnects => "5",
            (5, 1..=4) => "5",
            (5 | 6, 5) | (6, 1..=4) => "6",
            // It reconnects, unless it is being removed.
            (6, 6) if behaviour == Behaviour::Reconnecting && world.wanted(&key).is_some() => "1",
            _ => continue,
        };
        store.write_if((&own, &ours.to_string()), (&own, next)).await;
        if next == "4" && behaviour == Behaviour::Reconnecting {
            reconnect_at = Some(Instant::now() + chance.between(1000, 30_000));
        }
    }
}
