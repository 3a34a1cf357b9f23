//! A handler whose call into the kernel comes back when it is too late.

use std::{rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};
use xenplug_xenbus::{DeviceKey, Mode};

use super::{
    ALONE, GUESTS, PoisonError, enact,
    hand::Hand,
    in_world,
    plan::Plan,
    stage,
    toolstack::Slot,
    workers::records,
    world::{Stage, World},
};

/// How long the call takes: longer than a handler may, which is 10 s.
const CALL: Duration = Duration::from_secs(40);
/// When it has to be told that it has failed.
const DEADLINE: Duration = Duration::from_secs(13);
/// How long what goes well may take.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn what_comes_back_from_the_kernel_too_late_is_undone_and_has_held_up_nobody() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = stage();
    assert_eq!(enact(held_up(&stage), None), Ok(()));
    assert_eq!(enact(asked_for(&stage), None), Ok(()));
}

/// In dom0 its script is answered all the same, before libxl kills it: the toolstack sees to that.
async fn asked_for(stage: &Stage) -> Vec<String> {
    let plan = Plan {
        mode: Mode::Dom0,
        ..Plan::calm()
    };
    let world = World::new(0, plan, stage);
    in_world(&world, stage, async |_| {
        let mut slot = Slot::new(Rc::clone(&world), GUESTS[0]).await;
        slot.create(Vec::new()).await;
        let began = Instant::now();
        world.workers.hold_up(2 * CALL);
        slot.attach("vbd/5/51712".parse().expect("a device")).await;
        if world.machine.loops().len() != 1 {
            world.wrong("the call that is late has done nothing");
        }
        sleep(2 * CALL + SOON - began.elapsed()).await;
        let (records, loops) = (records(&world.journal()), world.machine.loops());
        if !(records.is_empty() && loops.is_empty()) {
            world.wrong(format!("{records:?} and {loops:?} are left"));
        }
    })
    .await
}

async fn held_up(stage: &Stage) -> Vec<String> {
    let world = World::new(0, Plan::calm(), stage);
    in_world(&world, stage, async |_| {
        let hand = Hand::new(&world).await;
        let [first, second]: [DeviceKey; 2] = ["vbd/5/51712", "vbd/5/51728"].map(|key| key.parse().expect("a device"));
        let read = async |key: &DeviceKey, name: &str| {
            let node = format!("{}/{name}", world.backend(key));
            hand.read(&node).await.unwrap_or_default()
        };
        let mut slot = Slot::new(Rc::clone(&world), GUESTS[0]).await;
        slot.create(Vec::new()).await;
        let began = Instant::now();
        world.workers.hold_up(CALL);
        slot.make(&first).await;
        sleep(SOON).await;
        if world.machine.loops().len() != 1 {
            world.wrong("the call that is late has done nothing");
        }
        slot.make(&second).await;
        sleep(SOON).await;
        if read(&second, "hotplug-status").await != "connected" {
            world.wrong("another device waits for the one whose handler does not come back");
        }
        while read(&first, "hotplug-status").await != "error" && began.elapsed() < DEADLINE {
            sleep(SOON / 10).await;
        }
        let told = read(&first, "hotplug-error").await;
        if !told.contains("the kernel does not come back from a call") {
            world.wrong(format!("after {:?} hotplug-error is {told:?}", began.elapsed()));
        }
        sleep(CALL + SOON - began.elapsed()).await;
        let told = read(&first, "hotplug-error").await;
        let status = read(&first, "hotplug-status").await;
        if status != "error" || !told.contains("too late") || !read(&first, "physical-device").await.is_empty() {
            world.wrong(format!("when it has come back, it is {status:?}, because of {told:?}"));
        }
        let (records, loops) = (records(&world.journal()), world.machine.loops());
        if records.len() != 1 || loops.len() != 1 {
            world.wrong(format!("{records:?} and {loops:?} are left of both"));
        }
    })
    .await
}
