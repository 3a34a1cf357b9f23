//! Pending calls, driven by the real state machine.

use std::time::Duration;

use tokio::time::timeout;
use xenplug_xenbus::{FsmAction as Do, HotplugStatus, Identity, Kind, Mode, Observation, WriteOutcome, XenbusState};

use super::*;

const DONE: Event = Event::Written(WriteOutcome::Done);
const UNKNOWN: Event = Event::Written(WriteOutcome::Unknown);

/// A state fsm with its pending calls.
struct Fixture {
    fsm: DeviceFsm,
    calls: PendingCalls,
}

impl Fixture {
    fn new() -> Self {
        Self {
            fsm: DeviceFsm::new(Mode::Dom0, Kind::VBD),
            calls: PendingCalls::default(),
        }
    }

    fn apply(&mut self, event: &Event) -> Option<Do> {
        let action = self.fsm.apply(event);
        self.calls.settle(&self.fsm, Some("phy: no"));
        action
    }

    /// A script calls, and the read that follows finds this.
    fn call(&mut self, action: ScriptAction, seen: Observation) -> oneshot::Receiver<Answer> {
        let (call, answer) = ScriptCall::new(action, ScriptArgs::default());
        let event = self.calls.take(call);
        let begun = self.apply(&event);
        self.find(begun, seen);
        answer
    }

    /// A read, if one is in flight, finds this.
    fn find(&mut self, action: Option<Do>, seen: Observation) -> Option<Do> {
        match action {
            Some(Do::ReadState(ticket)) => self.apply(&Event::StateRead(ticket, seen)),
            other => other,
        }
    }
}

fn device(state: XenbusState, status: HotplugStatus) -> Observation {
    Observation {
        present: true,
        identity: Identity {
            key: "vbd/3/51712".parse().expect("it is a device"),
            vm: Some("/vm/a".to_owned()),
        },
        state,
        online: true,
        frontend_gone: false,
        netdev: true,
        served: false,
        status,
        requested: false,
    }
}

fn waiting() -> Observation {
    device(XenbusState::InitWait, HotplugStatus::None)
}

fn in_use() -> Observation {
    device(XenbusState::Connected, HotplugStatus::Connected)
}

fn received(answer: &mut oneshot::Receiver<Answer>) -> Option<Answer> {
    answer.try_recv().ok()
}

fn has_failed(answer: Option<Answer>, word: &str) -> bool {
    matches!(answer, Some(Answer::Failed { error }) if error.contains(word))
}

#[test]
fn add_is_answered_when_it_is_published() {
    let mut fixture = Fixture::new();
    let mut first = fixture.call(ScriptAction::Add, waiting());
    fixture.apply(&Event::HandlerDone);
    assert_eq!(received(&mut first), None);
    fixture.apply(&DONE);
    assert_eq!(received(&mut first), Some(Answer::Done));
    let mut second = fixture.call(ScriptAction::Add, in_use());
    assert_eq!(received(&mut second), Some(Answer::Done));
}

#[test]
fn add_with_unknown_outcome_waits_for_a_read() {
    for (seen, connected) in [(in_use(), true), (waiting(), false)] {
        let mut fixture = Fixture::new();
        let mut add = fixture.call(ScriptAction::Add, waiting());
        fixture.apply(&Event::HandlerDone);
        let read = fixture.apply(&UNKNOWN);
        assert_eq!(received(&mut add), None, "only the phase says connected");
        fixture.find(read, seen);
        let answer = received(&mut add);
        assert!(if connected {
            answer == Some(Answer::Done)
        } else {
            has_failed(answer, "recreated")
        });
    }
}

#[test]
fn failed_add_is_answered_when_the_failure_is_published() {
    let mut fixture = Fixture::new();
    let mut add = fixture.call(ScriptAction::Add, waiting());
    fixture.apply(&Event::HandlerFailed);
    fixture.apply(&Event::ReleaseFailed);
    fixture.apply(&Event::Changed);
    fixture.apply(&Event::Released);
    assert_eq!(received(&mut add), None);
    fixture.apply(&DONE);
    assert!(has_failed(received(&mut add), "phy: no"));
}

#[test]
fn remove_is_answered_when_released_or_release_failed() {
    let connected_device = || {
        let mut fixture = Fixture::new();
        fixture.call(ScriptAction::Add, waiting());
        fixture.apply(&Event::HandlerDone);
        fixture.apply(&DONE);
        fixture
    };
    let mut fixture = connected_device();
    let mut remove = fixture.call(ScriptAction::Remove, in_use());
    let read = fixture.apply(&Event::Released);
    fixture.find(read, in_use());
    assert_eq!(received(&mut remove), None, "the store still says connected");
    fixture.apply(&DONE);
    assert_eq!(received(&mut remove), Some(Answer::Done));

    let mut fixture = connected_device();
    let mut remove = fixture.call(ScriptAction::Remove, in_use());
    fixture.apply(&Event::ReleaseFailed);
    assert!(has_failed(received(&mut remove), "phy: no"));

    let mut foreign = Fixture::new();
    let mut remove = foreign.call(ScriptAction::Remove, in_use());
    assert!(matches!(received(&mut remove), Some(Answer::NotServed { .. })));
}

#[test]
fn remove_answers_only_the_add_before_it() {
    let mut fixture = Fixture::new();
    let early = device(XenbusState::Initialising, HotplugStatus::None);
    let mut before = fixture.call(ScriptAction::Add, early.clone());
    let mut remove = fixture.call(ScriptAction::Remove, early.clone());
    let mut after = fixture.call(ScriptAction::Add, early);
    assert!(has_failed(received(&mut before), "removed"));
    assert_eq!(received(&mut remove), Some(Answer::Done));
    assert_eq!(received(&mut after), None);
    let gone = Observation {
        present: false,
        ..waiting()
    };
    let read = fixture.apply(&Event::Changed);
    fixture.find(read, gone);
    assert!(has_failed(received(&mut after), "no such backend"));
}

#[tokio::test]
async fn add_is_cancelled_when_the_last_script_is_gone() {
    let mut fixture = Fixture::new();
    let early = device(XenbusState::Initialising, HotplugStatus::None);
    let [first, second] = [(); 2].map(|()| fixture.call(ScriptAction::Add, early.clone()));
    drop(first);
    let far = Duration::from_millis(20);
    assert!(
        timeout(far, fixture.calls.withdrawn()).await.is_err(),
        "one still waits"
    );
    drop(second);
    assert!(timeout(far, fixture.calls.withdrawn()).await.is_ok());
    assert!(!fixture.calls.any_add());
    assert!(
        timeout(far, fixture.calls.withdrawn()).await.is_err(),
        "it is reported once"
    );
}

#[tokio::test]
async fn overdue_calls_are_returned_or_their_handler_is_stopped() {
    let mut fixture = Fixture::new();
    let _begun = fixture.call(ScriptAction::Add, waiting());
    let _waiting = fixture.call(ScriptAction::Add, waiting());
    let until = fixture.calls.until().expect("two wait");
    let overdue = fixture.calls.overdue(until - Duration::from_secs(1));
    assert!(overdue.waiting.is_empty() && !overdue.begun);
    let overdue = fixture.calls.overdue(until + Duration::from_secs(1));
    assert_eq!((overdue.waiting.len(), overdue.begun), (1, true));
    assert_eq!(fixture.calls.until(), None, "the call with a handler is reported once");
}
