//! Properties that hold in every order of events, and mistakes that the model finds.

use super::{
    Mistake, Rules,
    explore::{Violation, explore},
    world::{ModelPhase, World},
};
use crate::State;

/// Returns the violation of a single state.
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
fn closed_request_has_nothing_left_and_nobody_is_stuck() {
    let explored = explore(Rules::default(), wrong, World::is_clean).unwrap();
    // A model that shrinks is noticed.
    assert!(
        explored.states > 10_000 && explored.steps > explored.states,
        "{explored:?}"
    );
}

#[test]
fn stubborn_guest_does_not_block_a_forced_detach() {
    let rules = Rules {
        stubborn: true,
        ..Rules::default()
    };
    check(rules).unwrap();
}

#[test]
fn dead_driver_domain_leaves_only_removable_nodes() {
    let rules = Rules {
        mortal: true,
        ..Rules::default()
    };
    check(rules).unwrap();
}

#[test]
fn request_removed_by_hand_leaves_nothing_held() {
    let rules = Rules {
        careless: true,
        ..Rules::default()
    };
    let explored = explore(rules, wrong, World::is_as_good_as_clean).unwrap();
    assert!(explored.states > 10_000, "{explored:?}");
}

#[test]
fn device_can_be_attached_used_and_attached_again() {
    let used = |world: &World| {
        let state = world.request.as_ref().map(|request| (request.id.0, request.state));
        state == Some((2, State::InUse))
    };
    let found = explore(Rules::default(), |world| used(world).then_some("used"), World::is_clean);
    assert_eq!(found.unwrap_err().what, "used");
}

#[test]
fn cooperative_guest_needs_no_force() {
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
    let early = "gone reported while resources are held";
    let left = "gone reported while nodes are left";
    let cases: &[(Mistake, Rules, &[&str])] = &[
        (ClosedBeforeReleased, usual, &["closed while cleanup runs"]),
        (PendingReadIgnored, usual, &["closed while cleanup runs"]),
        (DaemonSkipsRecheck, usual, &["stuck"]),
        (ToolstackSkipsRecheck, usual, &[left]),
        (ToolstackDoesNotWait, usual, &[early, left]),
        (AcceptedRequestRemoved, usual, &[left]),
        (ForceIgnored, stubborn, &["stuck"]),
        (NoJournal, usual, &["something is held that no machine releases"]),
        (CloseNotRequested, patient, &["stuck"]),
        (VmIgnored, usual, &["exists reported of a guest that is gone"]),
        (FrontendKept, usual, &["closed, and something is left"]),
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
