//! Every phase with every event.

use super::*;
use crate::{DeviceKey, HotplugStatus, XenbusState};

mod document;
mod dom0;
mod stories;
mod world;

/// Applies an event to a copy of the machine.
fn step(machine: &DeviceFsm, event: &Event) -> (DeviceFsm, Option<FsmAction>) {
    let mut next = machine.clone();
    let action = next.apply(event);
    (next, action)
}

/// The device that the machines below are about, in a virtual machine of this name, or in one that does not tell.
fn identity(kind: &Kind, vm: Option<&str>) -> Identity {
    let key: DeviceKey = format!("{kind}/3/0").parse().unwrap();
    Identity {
        key,
        vm: vm.map(|vm| format!("/vm/{vm}")),
    }
}

/// A device that is wanted.
fn wanted(kind: &Kind) -> Observation {
    Observation {
        present: true,
        identity: identity(kind, Some("a")),
        state: kind.handler_state(),
        online: true,
        frontend_gone: false,
        netdev: true,
        served: false,
        status: HotplugStatus::None,
        requested: false,
    }
}

/// A device in use.
fn in_use(kind: &Kind) -> Observation {
    Observation {
        state: XenbusState::Connected,
        status: HotplugStatus::Connected,
        ..wanted(kind)
    }
}

fn unplugged(kind: &Kind) -> Observation {
    Observation {
        state: XenbusState::Closed,
        online: false,
        ..in_use(kind)
    }
}

fn absent(kind: &Kind) -> Observation {
    Observation {
        present: false,
        identity: identity(kind, None),
        ..unplugged(kind)
    }
}

fn every_observation(kind: &Kind) -> Vec<Observation> {
    let mut all = Vec::new();
    let both = [false, true];
    for state in XenbusState::ALL {
        for status in HotplugStatus::ALL {
            for vm in [Some("a"), Some("b"), None] {
                for bits in 0..32 {
                    let [present, online, frontend_gone, netdev, requested] =
                        [1, 2, 4, 8, 16].map(|bit| both[usize::from(bits & bit != 0)]);
                    let identity = identity(kind, vm);
                    all.push(Observation {
                        present,
                        identity,
                        state,
                        online,
                        frontend_gone,
                        netdev,
                        served: false,
                        status,
                        requested,
                    });
                }
            }
        }
    }
    all
}

const EVERY_PHASE: [Phase; 19] = [
    Phase::Absent,
    Phase::Waiting,
    Phase::Connecting { stopping: false },
    Phase::Connecting { stopping: true },
    Phase::Publishing,
    Phase::Connected,
    Phase::Withdrawing,
    Phase::Foreign,
    Phase::Releasing {
        then: AfterRelease::ReadState,
    },
    Phase::Releasing {
        then: AfterRelease::PublishFailure,
    },
    Phase::ReleaseFailed {
        then: AfterRelease::ReadState,
    },
    Phase::ReleaseFailed {
        then: AfterRelease::PublishFailure,
    },
    Phase::Released { published: false },
    Phase::Released { published: true },
    Phase::Failing,
    Phase::Failed { published: false },
    Phase::Failed { published: true },
    Phase::Disconnecting,
    Phase::Removing,
];

/// A look that is under way, in all the machines below.
const UNDER_WAY: Ticket = Ticket(7);

/// Every machine of a kind, also those that nothing leads to.
fn every_machine(kind: &Kind) -> Vec<DeviceFsm> {
    let mut all = Vec::new();
    for mode in [Mode::DriverDomain, Mode::Dom0] {
        for phase in EVERY_PHASE {
            for vm in [Some("a"), None] {
                for bits in 0..16 {
                    let [read_owed, add_pending, remove_pending, lost] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
                    let identity = (phase != Phase::Absent).then(|| identity(kind, vm));
                    let [last_requested, last_answered] = [UNDER_WAY, Ticket(UNDER_WAY.0 - 1)];
                    // Nobody asks in a driver domain.
                    if mode == Mode::Dom0 || !(add_pending || remove_pending) {
                        all.push(DeviceFsm {
                            daemon: mode,
                            mode,
                            kind: kind.clone(),
                            phase,
                            identity,
                            last_requested,
                            last_answered,
                            read_owed,
                            add_pending,
                            remove_pending,
                            lost,
                        });
                    }
                }
            }
        }
    }
    all
}

fn every_completion() -> Vec<Event> {
    use WriteOutcome::{Done, Failed, Stale, Unknown};
    let mut all = vec![
        Event::HandlerDone,
        Event::HandlerFailed,
        Event::Released,
        Event::ReleaseFailed,
    ];
    all.extend([Done, Stale, Failed, Unknown].map(Event::Written));
    all
}

fn every_event(kind: &Kind) -> Vec<Event> {
    let mut all = every_completion();
    all.extend([
        Event::Changed,
        Event::Add,
        Event::Remove,
        Event::AddCancelled,
        Event::Lost,
    ]);
    all.extend(
        every_observation(kind)
            .into_iter()
            .map(|seen| Event::StateRead(UNDER_WAY, seen)),
    );
    all
}

/// Calls a check with every machine and every event, and what follows.
fn with_every_pair(check: impl Fn(&DeviceFsm, &Event, &DeviceFsm, Option<FsmAction>)) {
    for kind in [Kind::VBD, Kind::VBD3] {
        let events = every_event(&kind);
        for machine in every_machine(&kind) {
            for event in &events {
                let (next, action) = step(&machine, event);
                check(&machine, event, &next, action);
            }
        }
    }
}

/// The operation that is in flight in a phase.
fn operation(phase: Phase) -> Option<FsmAction> {
    match phase {
        Phase::Connecting { .. } => Some(FsmAction::RunHandler),
        Phase::Publishing => Some(FsmAction::Publish),
        Phase::Withdrawing => Some(FsmAction::Withdraw),
        Phase::Releasing { .. } => Some(FsmAction::Release),
        Phase::Failing => Some(FsmAction::PublishFailure),
        Phase::Disconnecting => Some(FsmAction::PublishDisconnected),
        Phase::Removing => Some(FsmAction::RemoveDirectory),
        Phase::Absent | Phase::Waiting | Phase::Connected | Phase::Foreign => None,
        Phase::ReleaseFailed { .. } | Phase::Released { .. } | Phase::Failed { .. } => None,
    }
}

fn completes(event: &Event, operation: FsmAction) -> bool {
    match operation {
        FsmAction::RunHandler => matches!(event, Event::HandlerDone | Event::HandlerFailed),
        FsmAction::Release => matches!(event, Event::Released | Event::ReleaseFailed),
        _ => matches!(event, Event::Written(_)),
    }
}

#[test]
fn one_operation_is_in_flight_at_most() {
    with_every_pair(|machine, event, next, action| {
        let completed = operation(machine.phase()).is_some_and(|operation| completes(event, operation));
        let begun = action.filter(|action| {
            !matches!(
                action,
                FsmAction::ReadState(_) | FsmAction::StopHandler | FsmAction::Forget
            )
        });
        if machine.phase().busy() && !completed {
            assert_eq!(begun, None, "{machine:?} {event:?}");
            assert_eq!(
                operation(next.phase()),
                operation(machine.phase()),
                "{machine:?} {event:?}"
            );
        } else {
            assert_eq!(begun, operation(next.phase()), "{machine:?} {event:?}");
        }
        assert_eq!(next.phase().busy(), operation(next.phase()).is_some());
    });
}

#[test]
fn a_completion_of_what_is_not_in_flight_changes_nothing() {
    for kind in [Kind::VBD, Kind::QDISK] {
        for machine in every_machine(&kind) {
            for event in every_completion() {
                if !operation(machine.phase()).is_some_and(|operation| completes(&event, operation)) {
                    assert_eq!(step(&machine, &event), (machine.clone(), None), "{event:?}");
                }
            }
        }
    }
}

#[test]
fn a_look_that_is_out_of_date_changes_nothing() {
    for machine in every_machine(&Kind::VBD) {
        for ticket in [Ticket(0), machine.last_answered, Ticket(UNDER_WAY.0 + 1)] {
            for seen in every_observation(&Kind::VBD) {
                assert_eq!(step(&machine, &Event::StateRead(ticket, seen)), (machine.clone(), None));
            }
        }
    }
}

#[test]
fn what_is_held_is_let_go_only_by_a_release() {
    with_every_pair(|machine, event, next, action| {
        if machine.phase().holds() && !next.phase().holds() {
            assert_eq!(
                (event, operation(machine.phase())),
                (&Event::Released, Some(FsmAction::Release)),
                "{machine:?}"
            );
        }
        if !machine.phase().holds() && next.phase().holds() {
            assert_eq!(action, Some(FsmAction::RunHandler), "{machine:?} {event:?}");
        }
    });
}

#[test]
fn a_handler_runs_only_for_a_device_that_waits_for_it_and_holds_nothing() {
    with_every_pair(|machine, event, next, action| {
        if action == Some(FsmAction::RunHandler) {
            assert!(
                !machine.phase().holds() && !machine.phase().busy(),
                "{machine:?} {event:?}"
            );
            let Event::StateRead(_, seen) = event else {
                panic!("{machine:?} ran at {event:?}")
            };
            assert!(
                seen.present && seen.online && seen.netdev && !seen.frontend_gone,
                "{machine:?} {event:?}"
            );
            assert_eq!(seen.state, machine.kind.handler_state());
            assert_ne!(seen.status, HotplugStatus::Connected);
            assert!(machine.add_pending || next.mode() == Mode::DriverDomain, "{machine:?}");
        }
    });
}

#[test]
fn a_connection_is_published_only_if_its_device_was_not_lost() {
    with_every_pair(|machine, event, _, action| {
        if action == Some(FsmAction::Publish) {
            let expected = (Phase::Connecting { stopping: false }, &Event::HandlerDone);
            assert_eq!((machine.phase(), event), expected);
        }
        if action == Some(FsmAction::StopHandler) {
            assert!(matches!(event, Event::StateRead(..) | Event::Remove), "{event:?}");
            assert_eq!(machine.phase(), Phase::Connecting { stopping: false }, "{event:?}");
        }
    });
}

#[test]
fn the_end_is_told_only_once_nothing_is_held_and_a_directory_is_removed_only_in_a_driver_domain() {
    with_every_pair(|machine, event, next, action| match action {
        Some(FsmAction::PublishDisconnected | FsmAction::PublishFailure) => {
            assert!(!next.phase().holds(), "{machine:?} {event:?}");
        }
        Some(FsmAction::RemoveDirectory) => {
            assert!(!next.phase().holds(), "{machine:?} {event:?}");
            assert_eq!(next.mode(), Mode::DriverDomain, "{event:?}");
            let told = machine.phase() == Phase::Disconnecting;
            let left = matches!(event, Event::StateRead(_, seen)
                if seen.present && seen.leaving() && seen.status == HotplugStatus::Disconnected);
            assert!(told || left, "{machine:?} {event:?}");
        }
        Some(FsmAction::Forget) => {
            let removed = (machine.phase(), event) == (Phase::Removing, &Event::Written(WriteOutcome::Done));
            assert!(
                removed || matches!(event, Event::StateRead(_, seen) if !seen.present),
                "{machine:?} {event:?}"
            );
            assert_eq!((next.phase(), next.identity()), (Phase::Absent, None));
        }
        _ => {}
    });
}

#[test]
fn a_device_has_the_mode_of_the_daemon_unless_the_last_look_says_that_it_was_made_for_a_request() {
    with_every_pair(|machine, event, next, _| {
        let mode = match event {
            Event::StateRead(_, seen) if seen.present && seen.requested => Mode::DriverDomain,
            Event::StateRead(_, seen) if seen.present => machine.daemon,
            _ => machine.mode,
        };
        assert_eq!(next.mode(), mode, "{machine:?} {event:?}");
    });
}

#[test]
fn in_dom0_nothing_is_written_of_a_device_that_was_not_ours() {
    with_every_pair(|machine, event, next, action| {
        let writes = matches!(action, Some(FsmAction::PublishDisconnected | FsmAction::PublishFailure));
        if next.mode() == Mode::Dom0 && writes {
            let held = matches!(
                machine.phase(),
                Phase::Releasing { .. } | Phase::Released { published: false }
            );
            let failed = matches!(machine.phase(), Phase::Failed { .. });
            assert!(held || failed, "{machine:?} {event:?}");
            if let Event::StateRead(_, seen) = event {
                assert!(seen.is_of(machine.identity().unwrap()), "{machine:?} {event:?}");
            }
        }
    });
}

#[test]
fn an_ask_stands_until_it_is_decided() {
    with_every_pair(|machine, event, next, action| {
        if machine.mode == Mode::DriverDomain {
            assert!(!next.add_pending && !next.remove_pending, "{machine:?} {event:?}");
            return;
        }
        if machine.add_pending && !next.add_pending {
            let decided = match event {
                Event::AddCancelled | Event::Remove => true,
                Event::Written(_) => action == Some(FsmAction::Forget),
                Event::StateRead(_, seen) => {
                    let connected = matches!(next.phase(), Phase::Connected | Phase::Foreign);
                    action == Some(FsmAction::RunHandler) || connected || !seen.present
                }
                _ => false,
            };
            assert!(decided, "{machine:?} {event:?} {action:?}");
        }
        if machine.remove_pending && !next.remove_pending {
            assert!(
                !next.phase().holds() || action == Some(FsmAction::RunHandler),
                "{machine:?} {event:?}"
            );
        }
        // A look that found something else to do first is followed by another.
        let undecided = (machine.add_pending && next.add_pending) || (machine.remove_pending && next.remove_pending);
        if undecided && matches!(next.phase(), Phase::Connected | Phase::Failed { .. }) {
            let untouched = machine.phase() == next.phase();
            assert!(untouched || next.read_pending(), "{machine:?} {event:?} {action:?}");
        }
    });
}

#[test]
fn a_device_in_use_is_left_alone() {
    with_every_pair(|machine, event, next, action| {
        let (Phase::Connected, Event::StateRead(_, seen)) = (machine.phase(), event) else {
            return;
        };
        let asks_for_it = !seen.present
            || machine.remove_pending
            || seen.frontend_gone
            || (seen.state == XenbusState::Closed && !seen.online)
            || (machine.identity().unwrap().vm.is_some() && seen.identity.vm == Some("/vm/b".into()))
            || (seen.state == XenbusState::Initialising && machine.kind == Kind::VBD)
            || (seen.state == machine.kind.handler_state() && seen.status != HotplugStatus::Connected);
        match asks_for_it {
            true => assert!(
                matches!(action, Some(FsmAction::Release | FsmAction::Withdraw)),
                "{event:?} {action:?}"
            ),
            false => assert_eq!((next.phase(), action), (Phase::Connected, None), "{event:?}"),
        }
    });
}

#[test]
fn a_change_is_looked_at_now_or_as_soon_as_the_device_rests() {
    for machine in every_machine(&Kind::VIF) {
        let (next, action) = step(&machine, &Event::Changed);
        let looks = matches!(action, Some(FsmAction::ReadState(ticket)) if ticket > machine.last_requested);
        let releases = action == Some(FsmAction::Release) && matches!(machine.phase(), Phase::ReleaseFailed { .. });
        assert!(
            looks || releases || (next.read_owed && machine.phase().busy()),
            "{machine:?} {action:?}"
        );
    }
    // Whatever rests does not owe a look, however it got there.
    with_every_pair(|machine, event, next, action| {
        if machine.phase().busy() && !next.phase().busy() {
            assert!(!next.read_owed, "{machine:?} {event:?} {action:?}");
            let looks = matches!(action, Some(FsmAction::ReadState(_)));
            assert!(looks || !machine.read_owed, "{machine:?} {event:?} {action:?}");
        }
    });
}

/// Answers actions as a machine without the device would, until nothing is left to do; returns what was asked for.
fn wind_up(machine: &mut DeviceFsm, mut event: Event) -> Vec<FsmAction> {
    let mut asked = Vec::new();
    // Looks and operations alternate; no phase is passed through twice.
    for _ in 0..32 {
        let Some(action) = machine.apply(&event) else { break };
        asked.push(action);
        event = match action {
            FsmAction::ReadState(ticket) => Event::StateRead(ticket, absent(&machine.kind)),
            FsmAction::RunHandler | FsmAction::StopHandler => Event::HandlerFailed,
            FsmAction::Release => Event::Released,
            FsmAction::Forget => break,
            _ => Event::Written(WriteOutcome::Stale),
        };
    }
    asked
}

#[test]
fn a_device_that_has_gone_is_released_and_forgotten_from_wherever_it_was() {
    for kind in [Kind::VBD, Kind::VIF, Kind::VBD3, Kind::QDISK] {
        for mut machine in every_machine(&kind) {
            let before = machine.phase();
            let mut asked = wind_up(&mut machine, Event::Changed);
            // What was in flight at the time ends in its own good time.
            let ends = match operation(before) {
                Some(FsmAction::RunHandler) => vec![Event::HandlerDone, Event::HandlerFailed],
                Some(FsmAction::Release) => vec![Event::Released],
                Some(_) => {
                    use WriteOutcome::{Done, Failed, Stale, Unknown};
                    [Done, Stale, Failed, Unknown].map(Event::Written).to_vec()
                }
                None => vec![Event::Changed],
            };
            for end in ends {
                let mut machine = machine.clone();
                if before.busy() && machine.phase().busy() {
                    asked.extend(wind_up(&mut machine, end));
                    asked.extend(wind_up(&mut machine, Event::Changed));
                }
                assert_eq!(machine.phase(), Phase::Absent, "from {before:?}: {asked:?}");
                assert_eq!(asked.last(), Some(&FsmAction::Forget), "from {before:?}");
                let releases = asked.contains(&FsmAction::Release) || operation(before) == Some(FsmAction::Release);
                assert_eq!(releases, before.holds(), "from {before:?}: {asked:?}");
            }
        }
    }
}
