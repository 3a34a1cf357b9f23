//! What holds in every order of events, and that the model finds what does not.

use super::{
    Mistake, Rules,
    explore::{Violation, explore},
    world::{ModelPhase, World},
};
use crate::State;

/// What is wrong with a state by itself.
fn wrong(world: &World) -> Option<&'static str> {
    if world.broken.is_some() {
        return world.broken;
    }
    let resting = |daemon: &super::world::Daemon| daemon.machine == ModelPhase::Rest;
    if world.held.is_some() && world.daemon.as_ref().is_some_and(resting) {
        return Some("something is held that no machine releases");
    }
    let request = world.request.as_ref()?;
    if request.state != State::Closed || !world.domain {
        return None;
    }
    if world.held == Some(request.id) {
        return Some("closed while cleanup runs");
    }
    world.has(request.id).then_some("closed, and something is left")
}

fn check(rules: Rules) -> Result<(), Violation> {
    explore(rules, wrong, World::is_clean).map(|explored| {
        assert!(explored.states > 1000, "{explored:?}");
    })
}

#[test]
fn closed_means_that_nothing_is_left_and_nobody_is_ever_stuck() {
    let explored = explore(Rules::default(), wrong, World::is_clean).unwrap();
    // What has to be looked through, so that a model that shrinks is noticed.
    assert!(
        explored.states > 10_000 && explored.steps > explored.states,
        "{explored:?}"
    );
}

#[test]
fn a_guest_that_never_lets_go_holds_up_nobody_who_does_not_wait_for_it() {
    let rules = Rules {
        stubborn: true,
        ..Rules::default()
    };
    check(rules).unwrap();
}

#[test]
fn a_driver_domain_that_dies_leaves_nothing_that_cannot_be_removed() {
    let rules = Rules {
        mortal: true,
        ..Rules::default()
    };
    check(rules).unwrap();
}

#[test]
fn a_request_that_is_removed_by_hand_leaves_nothing_held() {
    let rules = Rules {
        careless: true,
        ..Rules::default()
    };
    let explored = explore(rules, wrong, World::is_as_good_as_clean).unwrap();
    assert!(explored.states > 10_000, "{explored:?}");
}

#[test]
fn a_device_can_be_attached_used_and_attached_again() {
    let used = |world: &World| {
        let state = world.request.as_ref().map(|request| (request.id.0, request.state));
        state == Some((2, State::InUse))
    };
    let found = explore(Rules::default(), |world| used(world).then_some("used"), World::is_clean);
    assert_eq!(found.unwrap_err().what, "used");
}

#[test]
fn a_guest_that_lets_go_is_enough_without_force() {
    let rules = Rules {
        patient: true,
        ..Rules::default()
    };
    check(rules).unwrap();
}

#[test]
fn every_mistake_is_found() {
    use Mistake::*;
    let usual = Rules::default();
    let stubborn = Rules {
        stubborn: true,
        ..usual
    };
    let patient = Rules { patient: true, ..usual };
    let early = "told that it has gone, while it is still being released";
    let left = "told that it has gone, and something is left of it";
    let cases: &[(Mistake, Rules, &[&str])] = &[
        (ClosedBeforeReleased, usual, &["closed while cleanup runs"]),
        (LookUnderWayIgnored, usual, &["closed while cleanup runs"]),
        (DaemonDoesNotLookAgain, usual, &["stuck"]),
        (ToolstackDoesNotLookAgain, usual, &[left]),
        (ToolstackDoesNotWait, usual, &[early, left]),
        (WithdrawnWhenTaken, usual, &[left]),
        (ForceIgnored, stubborn, &["stuck"]),
        (NoJournal, usual, &["something is held that no machine releases"]),
        (GuestNotAsked, patient, &["stuck"]),
        (
            MachineIgnored,
            usual,
            &["told that there is such a device, and its guest has gone"],
        ),
        (FrontendLeft, usual, &["closed, and something is left"]),
    ];
    for (mistake, rules, expected) in cases {
        let rules = Rules {
            mistake: Some(*mistake),
            ..*rules
        };
        match check(rules) {
            Ok(()) => panic!("{mistake:?} is not found"),
            Err(violation) => {
                assert!(expected.contains(&violation.what), "{mistake:?}: {violation:?}");
            }
        }
    }
}
