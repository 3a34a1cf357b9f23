//! A device that cannot be given back: that is tried again, less and less often, until it can.

use std::{rc::Rc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use xenplug_system::{Error, simulated::Operation};
use xenplug_xenbus::DeviceKey;

use super::{
    ALONE, END, GUESTS, PoisonError, enact, in_world,
    plan::Plan,
    stage,
    toolstack::Slot,
    workers::records,
    world::{Stage, World},
};

/// How often it fails.
const FAILURES: usize = 12;
/// The pauses between the tries, unless something changes meanwhile: in seconds.
const PAUSES: [u64; FAILURES] = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60];
/// How much later a worker may begin.
const LATE: Duration = Duration::from_millis(500);

#[test]
fn what_cannot_be_given_back_is_tried_again_less_and_less_often() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = stage();
    assert_eq!(enact(insisted(&stage), None), Ok(()));
}

async fn insisted(stage: &Stage) -> Vec<String> {
    let world = World::new(0, Plan::calm(), stage);
    in_world(&world, stage, async |_| {
        let key: DeviceKey = "vbd/5/51712".parse().expect("a device");
        let mut slot = Slot::new(Rc::clone(&world), GUESTS[0]).await;
        slot.create(vec![key.clone()]).await;
        for nth in 1..=FAILURES {
            let busy = Error::Busy("somebody uses it".to_owned());
            world.machine.fail(Operation::DetachLoop, nth, busy);
        }
        let before = world.machine.calls(Operation::DetachLoop);
        let tries = async {
            let mut tries = Vec::new();
            while tries.len() <= FAILURES {
                if world.machine.calls(Operation::DetachLoop) > before + tries.len() {
                    tries.push(Instant::now());
                }
                sleep(Duration::from_millis(1)).await;
            }
            tries
        };
        let ((), tries) = tokio::join!(slot.detach(&key), timeout(END / 2, tries));
        let tries = tries.expect("it is tried until it can be done");
        let gaps: Vec<Duration> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (gap, pause) in gaps.iter().zip(PAUSES) {
            if *gap > Duration::from_secs(pause) + LATE {
                world.wrong(format!("it was not tried again within {pause} s: {gaps:?}"));
            }
        }
        // What its toolstack does to it, and a look at everything, are reasons to try at once.
        let early = gaps.iter().zip(PAUSES).filter(|(gap, pause)| gap.as_secs() < *pause);
        if early.count() > 3 {
            world.wrong(format!("it was tried too often: {gaps:?}"));
        }
        sleep(LATE).await;
        let (records, loops) = (records(&world.journal()), world.machine.loops());
        if !(records.is_empty() && loops.is_empty()) {
            world.wrong(format!("{records:?} and {loops:?} are left"));
        }
    })
    .await
}
