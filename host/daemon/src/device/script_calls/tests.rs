use std::time::Duration;

use tokio::time::timeout;
use xenplug_xenbus::{FsmAction as Do, HotplugStatus, Identity, Kind, Mode, Observation, WriteOutcome, XenbusState};

use super::*;

const DONE: Event = Event::Written(WriteOutcome::Done);
const UNKNOWN: Event = Event::Written(WriteOutcome::Unknown);

/// A device, and who waits for it.
struct Stage {
    machine: DeviceFsm,
    calls: PendingCalls,
}

impl Stage {
    fn new() -> Self {
        Self {
            machine: DeviceFsm::new(Mode::Dom0, Kind::VBD),
            calls: PendingCalls::default(),
        }
    }

    fn tell(&mut self, event: &Event) -> Option<Do> {
        let action = self.machine.apply(event);
        self.calls.settle(&self.machine, Some("phy: no"));
        action
    }

    /// Somebody calls, and this is found.
    fn ask(&mut self, action: ScriptAction, seen: Observation) -> oneshot::Receiver<Answer> {
        let (ask, answer) = ScriptCall::new(action, ScriptArgs::default());
        let event = self.calls.take(ask);
        let begun = self.tell(&event);
        self.find(begun, seen);
        answer
    }

    /// A look, if there is one under way, finds this.
    fn find(&mut self, action: Option<Do>, seen: Observation) -> Option<Do> {
        match action {
            Some(Do::ReadState(ticket)) => self.tell(&Event::StateRead(ticket, seen)),
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

fn heard(answer: &mut oneshot::Receiver<Answer>) -> Option<Answer> {
    answer.try_recv().ok()
}

fn has_failed(answer: Option<Answer>, word: &str) -> bool {
    matches!(answer, Some(Answer::Failed { error }) if error.contains(word))
}

#[test]
fn an_add_is_answered_once_it_is_published_and_not_before() {
    let mut stage = Stage::new();
    let mut first = stage.ask(ScriptAction::Add, waiting());
    stage.tell(&Event::HandlerDone);
    assert_eq!(heard(&mut first), None);
    stage.tell(&DONE);
    assert_eq!(heard(&mut first), Some(Answer::Done));
    let mut second = stage.ask(ScriptAction::Add, in_use());
    assert_eq!(heard(&mut second), Some(Answer::Done));
}

#[test]
fn an_add_of_which_nobody_knows_whether_it_was_published_waits_for_a_look() {
    for (seen, connected) in [(in_use(), true), (waiting(), false)] {
        let mut stage = Stage::new();
        let mut add = stage.ask(ScriptAction::Add, waiting());
        stage.tell(&Event::HandlerDone);
        let look = stage.tell(&UNKNOWN);
        assert_eq!(heard(&mut add), None, "the phase is connected already");
        stage.find(look, seen);
        let answer = heard(&mut add);
        assert!(if connected {
            answer == Some(Answer::Done)
        } else {
            has_failed(answer, "it went")
        });
    }
}

#[test]
fn a_failure_is_answered_once_it_is_told() {
    let mut stage = Stage::new();
    let mut add = stage.ask(ScriptAction::Add, waiting());
    stage.tell(&Event::HandlerFailed);
    stage.tell(&Event::ReleaseFailed);
    stage.tell(&Event::Changed);
    stage.tell(&Event::Released);
    assert_eq!(heard(&mut add), None);
    stage.tell(&DONE);
    assert!(has_failed(heard(&mut add), "phy: no"));
}

#[test]
fn a_remove_is_answered_once_nothing_is_held_or_something_cannot_be_given_back() {
    let plugged = || {
        let mut stage = Stage::new();
        stage.ask(ScriptAction::Add, waiting());
        stage.tell(&Event::HandlerDone);
        stage.tell(&DONE);
        stage
    };
    let mut stage = plugged();
    let mut remove = stage.ask(ScriptAction::Remove, in_use());
    let look = stage.tell(&Event::Released);
    stage.find(look, in_use());
    assert_eq!(heard(&mut remove), None, "the store still says connected");
    stage.tell(&DONE);
    assert_eq!(heard(&mut remove), Some(Answer::Done));

    let mut stage = plugged();
    let mut remove = stage.ask(ScriptAction::Remove, in_use());
    stage.tell(&Event::ReleaseFailed);
    assert!(has_failed(heard(&mut remove), "phy: no"));

    let mut foreign = Stage::new();
    let mut remove = foreign.ask(ScriptAction::Remove, in_use());
    assert!(matches!(heard(&mut remove), Some(Answer::NotServed { .. })));
}

#[test]
fn a_remove_answers_the_add_before_it_and_not_the_one_after_it() {
    let mut stage = Stage::new();
    let early = device(XenbusState::Initialising, HotplugStatus::None);
    let mut before = stage.ask(ScriptAction::Add, early.clone());
    let mut remove = stage.ask(ScriptAction::Remove, early.clone());
    let mut after = stage.ask(ScriptAction::Add, early);
    assert!(has_failed(heard(&mut before), "removed"));
    assert_eq!(heard(&mut remove), Some(Answer::Done));
    assert_eq!(heard(&mut after), None);
    let gone = Observation {
        present: false,
        ..waiting()
    };
    let look = stage.tell(&Event::Changed);
    stage.find(look, gone);
    assert!(has_failed(heard(&mut after), "no such backend"));
}

#[tokio::test]
async fn who_has_gone_is_not_waited_for() {
    let mut stage = Stage::new();
    let early = device(XenbusState::Initialising, HotplugStatus::None);
    let [first, second] = [(); 2].map(|()| stage.ask(ScriptAction::Add, early.clone()));
    drop(first);
    let far = Duration::from_millis(20);
    assert!(timeout(far, stage.calls.withdrawn()).await.is_err(), "one still waits");
    drop(second);
    assert!(timeout(far, stage.calls.withdrawn()).await.is_ok());
    assert!(!stage.calls.any_add());
    assert!(timeout(far, stage.calls.withdrawn()).await.is_err(), "it is said once");
}

#[tokio::test]
async fn what_has_waited_too_long_is_given_up_or_hurried() {
    let mut stage = Stage::new();
    let _begun = stage.ask(ScriptAction::Add, waiting());
    let _waiting = stage.ask(ScriptAction::Add, waiting());
    let until = stage.calls.until().expect("two wait");
    let overdue = stage.calls.overdue(until - Duration::from_secs(1));
    assert!(overdue.waiting.is_empty() && !overdue.begun);
    let overdue = stage.calls.overdue(until + Duration::from_secs(1));
    assert_eq!((overdue.waiting.len(), overdue.begun), (1, true));
    assert_eq!(
        stage.calls.until(),
        None,
        "the outcome of the one that was begun is near"
    );
}
