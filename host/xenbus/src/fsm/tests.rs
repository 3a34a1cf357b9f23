//! Properties of every phase with every event.

use super::*;
use crate::{DeviceKey, HotplugStatus, XenbusState};

mod document;
mod dom0;
mod stories;
mod world;

/// Applies an event to a copy of the state machine.
fn step(fsm: &DeviceFsm, event: &Event) -> (DeviceFsm, Option<FsmAction>) {
    let mut next = fsm.clone();
    let action = next.apply(event);
    (next, action)
}

/// Identity of the tests' device, with this name in its `vm` path or without one.
fn identity(kind: &Kind, vm: Option<&str>) -> Identity {
    let key: DeviceKey = format!("{kind}/3/0").parse().unwrap();
    Identity {
        key,
        vm: vm.map(|vm| format!("/vm/{vm}")),
    }
}

/// Device that is ready for its handler.
fn ready(kind: &Kind) -> Observation {
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

/// Device in use.
fn in_use(kind: &Kind) -> Observation {
    Observation {
        state: XenbusState::Connected,
        status: HotplugStatus::Connected,
        ..ready(kind)
    }
}

fn closed(kind: &Kind) -> Observation {
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
        ..closed(kind)
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

/// Ticket of the pending read in every state.
const PENDING_TICKET: Ticket = Ticket(7);

/// Returns every state of a kind's machine, reachable or not.
fn every_fsm(kind: &Kind) -> Vec<DeviceFsm> {
    let mut all = Vec::new();
    for mode in [Mode::DriverDomain, Mode::Dom0] {
        for phase in EVERY_PHASE {
            for vm in [Some("a"), None] {
                for bits in 0..16 {
                    let [read_owed, add_pending, remove_pending, lost] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
                    let identity = (phase != Phase::Absent).then(|| identity(kind, vm));
                    let [last_requested, last_answered] = [PENDING_TICKET, Ticket(PENDING_TICKET.0 - 1)];
                    // A driver domain has no script calls.
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
            .map(|read| Event::StateRead(PENDING_TICKET, read)),
    );
    all
}

/// Calls a check with every state, event, next state and action.
fn with_every_pair(check: impl Fn(&DeviceFsm, &Event, &DeviceFsm, Option<FsmAction>)) {
    for kind in [Kind::VBD, Kind::VBD3] {
        let events = every_event(&kind);
        for fsm in every_fsm(&kind) {
            for event in &events {
                let (next, action) = step(&fsm, event);
                check(&fsm, event, &next, action);
            }
        }
    }
}

/// Returns the operation that is in flight in a phase.
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
    with_every_pair(|fsm, event, next, action| {
        let completed = operation(fsm.phase()).is_some_and(|operation| completes(event, operation));
        let begun = action.filter(|action| {
            !matches!(
                action,
                FsmAction::ReadState(_) | FsmAction::StopHandler | FsmAction::Forget
            )
        });
        if fsm.phase().busy() && !completed {
            assert_eq!(begun, None, "{fsm:?} {event:?}");
            assert_eq!(operation(next.phase()), operation(fsm.phase()), "{fsm:?} {event:?}");
        } else {
            assert_eq!(begun, operation(next.phase()), "{fsm:?} {event:?}");
        }
        assert_eq!(next.phase().busy(), operation(next.phase()).is_some());
    });
}

#[test]
fn completion_without_operation_changes_nothing() {
    for kind in [Kind::VBD, Kind::QDISK] {
        for fsm in every_fsm(&kind) {
            for event in every_completion() {
                if !operation(fsm.phase()).is_some_and(|operation| completes(&event, operation)) {
                    assert_eq!(step(&fsm, &event), (fsm.clone(), None), "{event:?}");
                }
            }
        }
    }
}

#[test]
fn outdated_read_changes_nothing() {
    for fsm in every_fsm(&Kind::VBD) {
        for ticket in [Ticket(0), fsm.last_answered, Ticket(PENDING_TICKET.0 + 1)] {
            for read in every_observation(&Kind::VBD) {
                assert_eq!(step(&fsm, &Event::StateRead(ticket, read)), (fsm.clone(), None));
            }
        }
    }
}

#[test]
fn held_resources_end_only_by_a_release() {
    with_every_pair(|fsm, event, next, action| {
        if fsm.phase().holds() && !next.phase().holds() {
            assert_eq!(
                (event, operation(fsm.phase())),
                (&Event::Released, Some(FsmAction::Release)),
                "{fsm:?}"
            );
        }
        if !fsm.phase().holds() && next.phase().holds() {
            assert_eq!(action, Some(FsmAction::RunHandler), "{fsm:?} {event:?}");
        }
    });
}

#[test]
fn handler_runs_only_for_waiting_device_that_holds_nothing() {
    with_every_pair(|fsm, event, next, action| {
        if action == Some(FsmAction::RunHandler) {
            assert!(!fsm.phase().holds() && !fsm.phase().busy(), "{fsm:?} {event:?}");
            let Event::StateRead(_, read) = event else {
                panic!("{fsm:?} ran at {event:?}")
            };
            assert!(
                read.present && read.online && read.netdev && !read.frontend_gone,
                "{fsm:?} {event:?}"
            );
            assert_eq!(read.state, fsm.kind.handler_state());
            assert_ne!(read.status, HotplugStatus::Connected);
            assert!(fsm.add_pending || next.mode() == Mode::DriverDomain, "{fsm:?}");
        }
    });
}

#[test]
fn stopped_handler_is_never_published() {
    with_every_pair(|fsm, event, _, action| {
        if action == Some(FsmAction::Publish) {
            let expected = (Phase::Connecting { stopping: false }, &Event::HandlerDone);
            assert_eq!((fsm.phase(), event), expected);
        }
        if action == Some(FsmAction::StopHandler) {
            assert!(matches!(event, Event::StateRead(..) | Event::Remove), "{event:?}");
            assert_eq!(fsm.phase(), Phase::Connecting { stopping: false }, "{event:?}");
        }
    });
}

#[test]
fn end_is_published_only_once_nothing_is_held() {
    with_every_pair(|fsm, event, next, action| match action {
        Some(FsmAction::PublishDisconnected | FsmAction::PublishFailure) => {
            assert!(!next.phase().holds(), "{fsm:?} {event:?}");
        }
        Some(FsmAction::RemoveDirectory) => {
            assert!(!next.phase().holds(), "{fsm:?} {event:?}");
            assert_eq!(next.mode(), Mode::DriverDomain, "{event:?}");
            let disconnected = fsm.phase() == Phase::Disconnecting;
            let left = matches!(event, Event::StateRead(_, read)
                if read.present && read.leaving() && read.status == HotplugStatus::Disconnected);
            assert!(disconnected || left, "{fsm:?} {event:?}");
        }
        Some(FsmAction::Forget) => {
            let removed = (fsm.phase(), event) == (Phase::Removing, &Event::Written(WriteOutcome::Done));
            assert!(
                removed || matches!(event, Event::StateRead(_, read) if !read.present),
                "{fsm:?} {event:?}"
            );
            assert_eq!((next.phase(), next.identity()), (Phase::Absent, None));
        }
        _ => {}
    });
}

#[test]
fn mode_is_the_daemons_unless_made_for_a_request() {
    with_every_pair(|fsm, event, next, _| {
        let mode = match event {
            Event::StateRead(_, read) if read.present && read.requested => Mode::DriverDomain,
            Event::StateRead(_, read) if read.present => fsm.daemon,
            _ => fsm.mode,
        };
        assert_eq!(next.mode(), mode, "{fsm:?} {event:?}");
    });
}

#[test]
fn dom0_writes_nothing_for_a_foreign_device() {
    with_every_pair(|fsm, event, next, action| {
        let writes = matches!(action, Some(FsmAction::PublishDisconnected | FsmAction::PublishFailure));
        if next.mode() == Mode::Dom0 && writes {
            let held = matches!(
                fsm.phase(),
                Phase::Releasing { .. } | Phase::Released { published: false }
            );
            let failed = matches!(fsm.phase(), Phase::Failed { .. });
            assert!(held || failed, "{fsm:?} {event:?}");
            if let Event::StateRead(_, read) = event {
                assert!(read.is_of(fsm.identity().unwrap()), "{fsm:?} {event:?}");
            }
        }
    });
}

#[test]
fn script_call_is_pending_until_decided() {
    with_every_pair(|fsm, event, next, action| {
        if fsm.mode == Mode::DriverDomain {
            assert!(!next.add_pending && !next.remove_pending, "{fsm:?} {event:?}");
            return;
        }
        if fsm.add_pending && !next.add_pending {
            let decided = match event {
                Event::AddCancelled | Event::Remove => true,
                Event::Written(_) => action == Some(FsmAction::Forget),
                Event::StateRead(_, read) => {
                    let connected = matches!(next.phase(), Phase::Connected | Phase::Foreign);
                    action == Some(FsmAction::RunHandler) || connected || !read.present
                }
                _ => false,
            };
            assert!(decided, "{fsm:?} {event:?} {action:?}");
        }
        if fsm.remove_pending && !next.remove_pending {
            assert!(
                !next.phase().holds() || action == Some(FsmAction::RunHandler),
                "{fsm:?} {event:?}"
            );
        }
        // A read that led to another operation first is followed by another read.
        let undecided = (fsm.add_pending && next.add_pending) || (fsm.remove_pending && next.remove_pending);
        if undecided && matches!(next.phase(), Phase::Connected | Phase::Failed { .. }) {
            let untouched = fsm.phase() == next.phase();
            assert!(untouched || next.read_pending(), "{fsm:?} {event:?} {action:?}");
        }
    });
}

#[test]
fn device_in_use_is_left_alone() {
    with_every_pair(|fsm, event, next, action| {
        let (Phase::Connected, Event::StateRead(_, read)) = (fsm.phase(), event) else {
            return;
        };
        let asks_for_it = !read.present
            || fsm.remove_pending
            || read.frontend_gone
            || (read.state == XenbusState::Closed && !read.online)
            || (fsm.identity().unwrap().vm.is_some() && read.identity.vm == Some("/vm/b".into()))
            || (read.state == XenbusState::Initialising && fsm.kind == Kind::VBD)
            || (read.state == fsm.kind.handler_state() && read.status != HotplugStatus::Connected);
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
fn change_is_read_now_or_at_the_next_rest() {
    for fsm in every_fsm(&Kind::VIF) {
        let (next, action) = step(&fsm, &Event::Changed);
        let looks = matches!(action, Some(FsmAction::ReadState(ticket)) if ticket > fsm.last_requested);
        let releases = action == Some(FsmAction::Release) && matches!(fsm.phase(), Phase::ReleaseFailed { .. });
        assert!(
            looks || releases || (next.read_owed && fsm.phase().busy()),
            "{fsm:?} {action:?}"
        );
    }
    // A device that rests owes no read.
    with_every_pair(|fsm, event, next, action| {
        if fsm.phase().busy() && !next.phase().busy() {
            assert!(!next.read_owed, "{fsm:?} {event:?} {action:?}");
            let looks = matches!(action, Some(FsmAction::ReadState(_)));
            assert!(looks || !fsm.read_owed, "{fsm:?} {event:?} {action:?}");
        }
    });
}

/// Answers actions as if the device were absent until none follows; returns the actions.
fn wind_up(fsm: &mut DeviceFsm, mut event: Event) -> Vec<FsmAction> {
    let mut asked = Vec::new();
    // Reads and operations alternate, and no phase occurs twice.
    for _ in 0..32 {
        let Some(action) = fsm.apply(&event) else { break };
        asked.push(action);
        event = match action {
            FsmAction::ReadState(ticket) => Event::StateRead(ticket, absent(&fsm.kind)),
            FsmAction::RunHandler | FsmAction::StopHandler => Event::HandlerFailed,
            FsmAction::Release => Event::Released,
            FsmAction::Forget => break,
            _ => Event::Written(WriteOutcome::Stale),
        };
    }
    asked
}

#[test]
fn gone_device_is_released_and_forgotten_from_any_phase() {
    for kind in [Kind::VBD, Kind::VIF, Kind::VBD3, Kind::QDISK] {
        for mut fsm in every_fsm(&kind) {
            let before = fsm.phase();
            let mut asked = wind_up(&mut fsm, Event::Changed);
            // The operation in flight completes later.
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
                let mut fsm = fsm.clone();
                if before.busy() && fsm.phase().busy() {
                    asked.extend(wind_up(&mut fsm, end));
                    asked.extend(wind_up(&mut fsm, Event::Changed));
                }
                assert_eq!(fsm.phase(), Phase::Absent, "from {before:?}: {asked:?}");
                assert_eq!(asked.last(), Some(&FsmAction::Forget), "from {before:?}");
                let releases = asked.contains(&FsmAction::Release) || operation(before) == Some(FsmAction::Release);
                assert_eq!(releases, before.holds(), "from {before:?}: {asked:?}");
            }
        }
    }
}
