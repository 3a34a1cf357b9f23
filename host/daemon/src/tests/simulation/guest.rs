//! A guest's frontend: one that connects, one that is slow, one that comes and goes, and one that never answers.

use std::rc::Rc;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use xenplug_xenbus::{BackendPath, DeviceKey};

use super::{chance::Chance, hand::Hand, world::World};

/// How a frontend behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    Good,
    Slow,
    Restless,
    Mute,
}

/// Plays a frontend until its guest dies.
pub(super) async fn frontend(world: Rc<World>, hand: Hand, key: DeviceKey, manners: Manners, dead: CancellationToken) {
    if manners == Manners::Mute {
        return;
    }
    let chance = Chance::of(world.seed, &format!("frontend {key} {}", world.count.get()));
    let backend = format!("{}/state", world.backend(&key));
    let path = BackendPath {
        backend: world.own,
        key: key.clone(),
    };
    let own = format!("{}/state", path.frontend_path());
    let mut watch = hand.watch(&backend).await;
    let slow = if manners == Manners::Slow {
        15_000
    } else {
        world.plan.others
    };
    let mut restless = None;
    loop {
        let far = Instant::now() + std::time::Duration::from_secs(3600);
        let wakes = tokio::select! {
            biased;
            () = dead.cancelled() => return,
            _ = watch.next() => false,
            () = sleep_until(restless.unwrap_or(far)) => true,
        };
        tokio::select! {
            biased;
            () = dead.cancelled() => return,
            () = sleep(chance.upto(slow)) => {}
        }
        let (theirs, ours) = (hand.number(&backend).await, hand.number(&own).await);
        if wakes {
            restless = None;
        }
        let next = match (theirs, ours) {
            (2, 1) => "3",
            (4, 3) => "4",
            // It closes by itself, as a guest does that starts another kernel.
            (4, 4) if wakes => "5",
            (5, 1..=4) => "5",
            (5 | 6, 5) | (6, 1..=4) => "6",
            // It comes again, unless it is to go.
            (6, 6) if manners == Manners::Restless && world.wanted(&key).is_some() => "1",
            _ => continue,
        };
        hand.write_if((&own, &ours.to_string()), (&own, next)).await;
        if next == "4" && manners == Manners::Restless {
            restless = Some(Instant::now() + chance.between(1000, 30_000));
        }
    }
}
