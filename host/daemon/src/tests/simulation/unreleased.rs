//! A device that cannot be released: the daemon tries again, less and less often, until it can.

use std::{rc::Rc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use xenplug_system::{Error, simulated::Operation};
use xenplug_xenbus::DeviceKey;

use super::{
    ALONE, END, GUESTS, PoisonError, enact, fixture, in_world,
    plan::Plan,
    toolstack::Slot,
    workers::records,
    world::{Fixture, World},
};

/// The number of failures.
const FAILURES: usize = 12;
/// The pauses between the tries in seconds, unless something changes meanwhile.
const PAUSES: [u64; FAILURES] = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60];
/// The delay with which a worker may begin.
const LATE: Duration = Duration::from_millis(500);

#[test]
fn failed_release_is_retried_with_growing_pauses() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let fixture = fixture();
    assert_eq!(enact(retried(&fixture), None), Ok(()));
}

async fn retried(fixture: &Fixture) -> Vec<String> {
    let world = World::new(0, Plan::calm(), fixture);
    in_world(&world, fixture, async |_| {
        let key: DeviceKey = "vbd/5/51712".parse().expect("a device");
        let mut slot = Slot::new(Rc::clone(&world), GUESTS[0]).await;
        slot.create(vec![key.clone()]).await;
        for nth in 1..=FAILURES {
            let busy = Error::Busy("somebody uses it".to_owned());
            world.host.fail(Operation::DetachLoop, nth, busy);
        }
        let before = world.host.calls(Operation::DetachLoop);
        let tries = async {
            let mut tries = Vec::new();
            while tries.len() <= FAILURES {
                if world.host.calls(Operation::DetachLoop) > before + tries.len() {
                    tries.push(Instant::now());
                }
                sleep(Duration::from_millis(1)).await;
            }
            tries
        };
        let ((), tries) = tokio::join!(slot.detach(&key), timeout(END / 2, tries));
        let tries = tries.expect("it is tried until it succeeds");
        let gaps: Vec<Duration> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (gap, pause) in gaps.iter().zip(PAUSES) {
            if *gap > Duration::from_secs(pause) + LATE {
                world.wrong(format!("it was not tried again within {pause} s: {gaps:?}"));
            }
        }
        // Its toolstack's writes and a resync are reasons to try at once.
        let early = gaps.iter().zip(PAUSES).filter(|(gap, pause)| gap.as_secs() < *pause);
        if early.count() > 3 {
            world.wrong(format!("it was tried too often: {gaps:?}"));
        }
        sleep(LATE).await;
        let (records, loops) = (records(&world.journal()), world.host.loops());
        if !(records.is_empty() && loops.is_empty()) {
            world.wrong(format!("{records:?} and {loops:?} are left"));
        }
    })
    .await
}
