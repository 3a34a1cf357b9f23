//! The daemon is killed at every call.

use std::time::Duration;

use anyhow::Result;
use xenplug_tests::{
    stepper::{Call, Deed, Point, why_pure},
    trial::{Length, length},
};

use super::course::{CARD, Course, DISK, Step, every_point};

/// Killed before every call that has an effect, and after it. At length also at all the others.
fn deaths(_: usize, call: &Call) -> Vec<Deed> {
    match (why_pure(call), length()) {
        (Some(_), Length::Short) => Vec::new(),
        (Some(_), Length::Long) => vec![Deed::KillBefore],
        (None, _) => vec![Deed::KillBefore, Deed::KillAfter],
    }
}

/// Kills the daemon at a point, starts it again, and sees that the device comes and goes. False: it did not come there.
fn killed_at(course: &mut Course, step: Step, point: &Point) -> Result<bool> {
    let (device, _, hit) = course.step(step, Some(point))?;
    if hit {
        let daemon = course.machine.daemon_mut()?;
        daemon.kill()?;
        daemon.restart()?;
    }
    match step {
        Step::Attach => {
            course.machine.expect_connected(&device)?;
            course.machine.detach(&device)?;
        }
        Step::Detach => course.machine.toolstack().finish(&device, Duration::from_secs(10))?,
    }
    course.baseline.assert_same(&course.machine)?;
    Ok(hit)
}

#[test]
fn a_disk_comes_and_goes_though_the_daemon_is_killed_at_any_call() -> Result<()> {
    every_point("a disk", DISK, deaths, killed_at)
}

#[test]
fn a_card_comes_and_goes_though_the_daemon_is_killed_at_any_call() -> Result<()> {
    every_point("a card", CARD, deaths, killed_at)
}
