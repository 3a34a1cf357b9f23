//! A handler whose call into the kernel comes back too late.

use std::{rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};
use xenplug_xenbus::{DeviceKey, Mode};

use super::{
    ALONE, GUESTS, PoisonError, enact, fixture, in_world,
    plan::Plan,
    store::StoreAccess,
    toolstack::Slot,
    workers::records,
    world::{Fixture, World},
};

/// The time of the call: longer than a handler's deadline of 10 s.
const CALL: Duration = Duration::from_secs(40);
/// The time within which the failure must be published.
const DEADLINE: Duration = Duration::from_secs(13);
/// The time within which what succeeds must be done.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn late_handler_is_undone_and_delays_no_other_device() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let fixture = fixture();
    assert_eq!(enact(late_in_driver_domain(&fixture), None), Ok(()));
    assert_eq!(enact(late_in_dom0(&fixture), None), Ok(()));
}

/// In dom0 its script is answered before libxl kills it, which the toolstack checks.
async fn late_in_dom0(fixture: &Fixture) -> Vec<String> {
    let plan = Plan {
        mode: Mode::Dom0,
        ..Plan::calm()
    };
    let world = World::new(0, plan, fixture);
    in_world(&world, fixture, async |_| {
        let mut slot = Slot::new(Rc::clone(&world), GUESTS[0]).await;
        slot.create(Vec::new()).await;
        let began = Instant::now();
        world.workers.make_stuck(2 * CALL);
        slot.attach("vbd/5/51712".parse().expect("a device")).await;
        if world.host.loops().len() != 1 {
            world.wrong("the late call has no effect yet");
        }
        sleep(2 * CALL + SOON - began.elapsed()).await;
        let (records, loops) = (records(&world.journal()), world.host.loops());
        if !(records.is_empty() && loops.is_empty()) {
            world.wrong(format!("{records:?} and {loops:?} are left"));
        }
    })
    .await
}

async fn late_in_driver_domain(fixture: &Fixture) -> Vec<String> {
    let world = World::new(0, Plan::calm(), fixture);
    in_world(&world, fixture, async |_| {
        let store = StoreAccess::new(&world).await;
        let [first, second]: [DeviceKey; 2] = ["vbd/5/51712", "vbd/5/51728"].map(|key| key.parse().expect("a device"));
        let read = async |key: &DeviceKey, name: &str| {
            let node = format!("{}/{name}", world.backend(key));
            store.read(&node).await.unwrap_or_default()
        };
        let mut slot = Slot::new(Rc::clone(&world), GUESTS[0]).await;
        slot.create(Vec::new()).await;
        let began = Instant::now();
        world.workers.make_stuck(CALL);
        slot.make(&first).await;
        sleep(SOON).await;
        if world.host.loops().len() != 1 {
            world.wrong("the late call has no effect yet");
        }
        slot.make(&second).await;
        sleep(SOON).await;
        if read(&second, "hotplug-status").await != "connected" {
            world.wrong("another device waits for the one whose handler does not come back");
        }
        while read(&first, "hotplug-status").await != "error" && began.elapsed() < DEADLINE {
            sleep(SOON / 10).await;
        }
        let error = read(&first, "hotplug-error").await;
        if !error.contains("the kernel does not come back from a call") {
            world.wrong(format!("after {:?} hotplug-error is {error:?}", began.elapsed()));
        }
        sleep(CALL + SOON - began.elapsed()).await;
        let error = read(&first, "hotplug-error").await;
        let status = read(&first, "hotplug-status").await;
        if status != "error" || !error.contains("too late") || !read(&first, "physical-device").await.is_empty() {
            world.wrong(format!("when it has come back, it is {status:?}, because of {error:?}"));
        }
        let (records, loops) = (records(&world.journal()), world.host.loops());
        if records.len() != 1 || loops.len() != 1 {
            world.wrong(format!("{records:?} and {loops:?} are left of both"));
        }
    })
    .await
}
