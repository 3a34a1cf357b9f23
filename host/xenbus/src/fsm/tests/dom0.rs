//! The life of a device in dom0, where the toolstack asks and removes.

use super::{
    stories::{DONE, REFUSED, STALE, Story, UNKNOWN},
    *,
};

const ADD: Event = Event::Add;
const REMOVE: Event = Event::Remove;

fn told(kind: &Kind) -> Observation {
    Observation {
        status: HotplugStatus::Disconnected,
        ..unplugged(kind)
    }
}

fn initialising(kind: &Kind) -> Observation {
    Observation {
        state: XenbusState::Initialising,
        ..wanted(kind)
    }
}

fn with_error(kind: &Kind) -> Observation {
    Observation {
        status: HotplugStatus::Error,
        ..wanted(kind)
    }
}

#[test]
fn the_toolstack_removes_the_directory() {
    let kind = Kind::VBD;
    Story::connected(Mode::Dom0, kind.clone())
        .sees(unplugged(&kind), FsmAction::Release)
        .then_sees(Event::Released, unplugged(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None)
        .is(Phase::Released { published: true })
        .sees(told(&kind), None)
        .then_sees(REMOVE, told(&kind), None)
        .is(Phase::Released { published: true })
        .sees(absent(&kind), FsmAction::Forget);
}

#[test]
fn a_handler_runs_once_for_each_time_that_it_is_asked_for() {
    let kind = Kind::VIF;
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .sees(initialising(&kind), None)
        .sees(wanted(&kind), None)
        .is(Phase::Waiting)
        .then_sees(ADD, wanted(&kind), FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(DONE, None)
        .is(Phase::Connected);
    // Released, and made anew.
    story
        .sees(unplugged(&kind), FsmAction::Release)
        .then_sees(Event::Released, unplugged(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None)
        .sees(initialising(&kind), None)
        .sees(wanted(&kind), None)
        .is(Phase::Waiting)
        .then_sees(ADD, wanted(&kind), FsmAction::RunHandler);
    assert!(!story.0.add_pending());
}

#[test]
fn an_add_waits_for_state_and_link() {
    let kind = Kind::VIF;
    let without_link = Observation {
        netdev: false,
        ..wanted(&kind)
    };
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .then_sees(ADD, initialising(&kind), None)
        .sees(without_link.clone(), None)
        .is(Phase::Waiting);
    assert!(story.0.add_pending());
    story.sees(wanted(&kind), FsmAction::RunHandler);
    // Unless nobody waits for it any more.
    Story::new(Mode::Dom0, kind.clone())
        .then_sees(ADD, without_link, None)
        .on(Event::AddCancelled, None)
        .sees(wanted(&kind), None)
        .is(Phase::Waiting);
}

#[test]
fn an_add_of_what_is_connected_or_absent_is_decided_at_once() {
    let kind = Kind::VBD;
    let mut connected = Story::connected(Mode::Dom0, kind.clone());
    connected.then_sees(ADD, in_use(&kind), None).is(Phase::Connected);
    let mut foreign = Story::new(Mode::Dom0, kind.clone());
    foreign.then_sees(ADD, in_use(&kind), None).is(Phase::Foreign);
    let mut gone = Story::new(Mode::Dom0, kind.clone());
    gone.then_sees(ADD, absent(&kind), FsmAction::Forget);
    for story in [connected, foreign, gone] {
        assert!(!story.0.add_pending());
    }
}

#[test]
fn an_add_after_a_failure_is_another_try() {
    let kind = Kind::VBD;
    Story::failed(Mode::Dom0, kind.clone())
        .sees(with_error(&kind), None)
        .then_sees(ADD, with_error(&kind), FsmAction::RunHandler);
    // One that comes while the handler runs is not answered by its failure, but is by its success.
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .then_sees(ADD, wanted(&kind), FsmAction::RunHandler)
        .then_sees(ADD, wanted(&kind), None)
        .on(Event::HandlerFailed, FsmAction::Release)
        .on(Event::Released, FsmAction::PublishFailure)
        .then_sees(DONE, with_error(&kind), FsmAction::RunHandler)
        .then_sees(ADD, with_error(&kind), None)
        .on(Event::HandlerDone, FsmAction::Publish);
    assert!(story.0.add_pending());
    story.then_sees(DONE, in_use(&kind), None).is(Phase::Connected);
    assert!(!story.0.add_pending());
}

#[test]
fn an_add_may_come_while_the_device_before_is_still_being_released() {
    let kind = Kind::VBD;
    Story::connected(Mode::Dom0, kind.clone())
        .on(REMOVE, FsmAction::Release)
        .on(ADD, None)
        .then_sees(Event::Released, wanted(&kind), FsmAction::RunHandler);
    // The directory is still the old one: the add has to wait for another.
    Story::connected(Mode::Dom0, kind.clone())
        .on(REMOVE, FsmAction::Release)
        .on(ADD, None)
        .then_sees(Event::Released, in_use(&kind), FsmAction::PublishDisconnected)
        .then_sees(DONE, told(&kind), None)
        .sees(initialising(&kind), None)
        .sees(wanted(&kind), FsmAction::RunHandler);
    // It could not be released at first.
    Story::connected(Mode::Dom0, kind.clone())
        .sees(absent(&kind), FsmAction::Release)
        .on(Event::ReleaseFailed, None)
        .on(ADD, FsmAction::Release)
        .then_sees(Event::Released, wanted(&kind), FsmAction::RunHandler);
}

#[test]
fn a_directory_made_anew_under_a_running_handler_waits_for_its_own_add() {
    let kind = Kind::VBD;
    let published = || {
        let mut story = Story::new(Mode::Dom0, kind.clone());
        story
            .then_sees(ADD, wanted(&kind), FsmAction::RunHandler)
            .on(Event::HandlerDone, FsmAction::Publish);
        story
    };
    published()
        .on(STALE, FsmAction::Release)
        .then_sees(Event::Released, wanted(&kind), None)
        .is(Phase::Waiting);
    published().on(ADD, None).on(STALE, FsmAction::Release).then_sees(
        Event::Released,
        wanted(&kind),
        FsmAction::RunHandler,
    );
}

#[test]
fn a_remove_releases_whatever_the_store_says() {
    let kind = Kind::VBD;
    let closing = Observation {
        state: XenbusState::Closing,
        online: false,
        ..in_use(&kind)
    };
    for seen in [in_use(&kind), closing, unplugged(&kind)] {
        let mut story = Story::connected(Mode::Dom0, kind.clone());
        story
            .on(REMOVE, FsmAction::Release)
            .then_sees(Event::Released, seen, FsmAction::PublishDisconnected)
            .on(DONE, None)
            .is(Phase::Released { published: true });
        assert!(!story.0.remove_pending());
    }
    Story::connected(Mode::Dom0, kind.clone())
        .on(REMOVE, FsmAction::Release)
        .then_sees(Event::Released, absent(&kind), FsmAction::Forget);
    // In the middle of its handler, or of what follows it.
    Story::new(Mode::Dom0, kind.clone())
        .then_sees(ADD, wanted(&kind), FsmAction::RunHandler)
        .on(REMOVE, FsmAction::StopHandler)
        .on(Event::HandlerDone, FsmAction::Release)
        .then_sees(Event::Released, wanted(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None);
    for published in [DONE, UNKNOWN] {
        Story::new(Mode::Dom0, kind.clone())
            .then_sees(ADD, wanted(&kind), FsmAction::RunHandler)
            .on(Event::HandlerDone, FsmAction::Publish)
            .on(REMOVE, None)
            .then_sees(published, in_use(&kind), FsmAction::Release)
            .then_sees(Event::Released, in_use(&kind), FsmAction::PublishDisconnected);
    }
}

#[test]
fn a_remove_ends_an_add_that_no_handler_has_begun_for() {
    let kind = Kind::VIF;
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .then_sees(ADD, initialising(&kind), None)
        .then_sees(REMOVE, wanted(&kind), None)
        .is(Phase::Waiting);
    assert!(!story.0.add_pending() && !story.0.remove_pending());
}

#[test]
fn a_remove_of_what_failed_takes_the_failure_away() {
    let kind = Kind::VBD;
    Story::failed(Mode::Dom0, kind.clone())
        .then_sees(REMOVE, with_error(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None)
        .is(Phase::Released { published: true });
    // Also of what could not be released, and whose failure was to be told after it.
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .then_sees(ADD, wanted(&kind), FsmAction::RunHandler)
        .on(Event::HandlerFailed, FsmAction::Release)
        .on(Event::ReleaseFailed, None)
        .on(REMOVE, FsmAction::Release)
        .then_sees(Event::Released, absent(&kind), FsmAction::Forget);
}

#[test]
fn what_others_connected_stays_theirs() {
    let kind = Kind::VBD;
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .then_sees(REMOVE, in_use(&kind), None)
        .is(Phase::Foreign)
        .then_sees(REMOVE, unplugged(&kind), None)
        .is(Phase::Foreign);
    // Also where one of ours was before.
    Story::connected(Mode::Dom0, kind.clone())
        .sees(unplugged(&kind), FsmAction::Release)
        .then_sees(Event::Released, unplugged(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None)
        .sees(in_use(&kind), None)
        .is(Phase::Foreign);
}

#[test]
fn an_end_that_cannot_be_told_is_told_at_the_next_look() {
    let kind = Kind::VBD;
    Story::connected(Mode::Dom0, kind.clone())
        .on(REMOVE, FsmAction::Release)
        .then_sees(Event::Released, in_use(&kind), FsmAction::PublishDisconnected)
        .on(REFUSED, None)
        .is(Phase::Released { published: false })
        .sees(in_use(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None)
        .is(Phase::Released { published: true });
}

#[test]
fn what_was_made_for_a_request_is_served_without_an_ask_and_removed_by_us() {
    let kind = Kind::VBD;
    let requested = |seen| Observation {
        requested: true,
        ..seen
    };
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .sees(requested(wanted(&kind)), FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(DONE, None)
        .is(Phase::Connected)
        .sees(requested(unplugged(&kind)), FsmAction::Release)
        .then_sees(
            Event::Released,
            requested(unplugged(&kind)),
            FsmAction::PublishDisconnected,
        )
        .on(DONE, FsmAction::RemoveDirectory)
        .on(DONE, FsmAction::Forget);
    // The next one at this place is the toolstack's own.
    story
        .sees(wanted(&kind), None)
        .is(Phase::Waiting)
        .then_sees(ADD, wanted(&kind), FsmAction::RunHandler);
}
