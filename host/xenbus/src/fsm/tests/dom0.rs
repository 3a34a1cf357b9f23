//! Stories of a device in dom0, where scripts call and the toolstack removes.

use super::{
    stories::{DONE, REFUSED, STALE, Story, UNKNOWN},
    *,
};

const ADD: Event = Event::Add;
const REMOVE: Event = Event::Remove;

fn disconnected(kind: &Kind) -> Observation {
    Observation {
        status: HotplugStatus::Disconnected,
        ..closed(kind)
    }
}

fn initialising(kind: &Kind) -> Observation {
    Observation {
        state: XenbusState::Initialising,
        ..ready(kind)
    }
}

fn with_error(kind: &Kind) -> Observation {
    Observation {
        status: HotplugStatus::Error,
        ..ready(kind)
    }
}

#[test]
fn dom0_leaves_the_directory_to_the_toolstack() {
    let kind = Kind::VBD;
    Story::connected(Mode::Dom0, kind.clone())
        .reads(closed(&kind), FsmAction::Release)
        .then_reads(Event::Released, closed(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None)
        .is(Phase::Released { published: true })
        .reads(disconnected(&kind), None)
        .then_reads(REMOVE, disconnected(&kind), None)
        .is(Phase::Released { published: true })
        .reads(absent(&kind), FsmAction::Forget);
}

#[test]
fn handler_runs_once_per_add() {
    let kind = Kind::VIF;
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .reads(initialising(&kind), None)
        .reads(ready(&kind), None)
        .is(Phase::Waiting)
        .then_reads(ADD, ready(&kind), FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(DONE, None)
        .is(Phase::Connected);
    // Released and recreated.
    story
        .reads(closed(&kind), FsmAction::Release)
        .then_reads(Event::Released, closed(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None)
        .reads(initialising(&kind), None)
        .reads(ready(&kind), None)
        .is(Phase::Waiting)
        .then_reads(ADD, ready(&kind), FsmAction::RunHandler);
    assert!(!story.0.add_pending());
}

#[test]
fn add_waits_for_state_and_link() {
    let kind = Kind::VIF;
    let without_link = Observation {
        netdev: false,
        ..ready(&kind)
    };
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .then_reads(ADD, initialising(&kind), None)
        .reads(without_link.clone(), None)
        .is(Phase::Waiting);
    assert!(story.0.add_pending());
    story.reads(ready(&kind), FsmAction::RunHandler);
    // A cancelled call starts nothing.
    Story::new(Mode::Dom0, kind.clone())
        .then_reads(ADD, without_link, None)
        .on(Event::AddCancelled, None)
        .reads(ready(&kind), None)
        .is(Phase::Waiting);
}

#[test]
fn add_of_connected_or_absent_device_is_decided_at_once() {
    let kind = Kind::VBD;
    let mut connected = Story::connected(Mode::Dom0, kind.clone());
    connected.then_reads(ADD, in_use(&kind), None).is(Phase::Connected);
    let mut foreign = Story::new(Mode::Dom0, kind.clone());
    foreign.then_reads(ADD, in_use(&kind), None).is(Phase::Foreign);
    let mut gone = Story::new(Mode::Dom0, kind.clone());
    gone.then_reads(ADD, absent(&kind), FsmAction::Forget);
    for story in [connected, foreign, gone] {
        assert!(!story.0.add_pending());
    }
}

#[test]
fn add_after_a_failure_retries() {
    let kind = Kind::VBD;
    Story::failed(Mode::Dom0, kind.clone())
        .reads(with_error(&kind), None)
        .then_reads(ADD, with_error(&kind), FsmAction::RunHandler);
    // A call during the handler is not answered by its failure but by its success.
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .then_reads(ADD, ready(&kind), FsmAction::RunHandler)
        .then_reads(ADD, ready(&kind), None)
        .on(Event::HandlerFailed, FsmAction::Release)
        .on(Event::Released, FsmAction::PublishFailure)
        .then_reads(DONE, with_error(&kind), FsmAction::RunHandler)
        .then_reads(ADD, with_error(&kind), None)
        .on(Event::HandlerDone, FsmAction::Publish);
    assert!(story.0.add_pending());
    story.then_reads(DONE, in_use(&kind), None).is(Phase::Connected);
    assert!(!story.0.add_pending());
}

#[test]
fn add_during_a_release_runs_the_handler_afterwards() {
    let kind = Kind::VBD;
    Story::connected(Mode::Dom0, kind.clone())
        .on(REMOVE, FsmAction::Release)
        .on(ADD, None)
        .then_reads(Event::Released, ready(&kind), FsmAction::RunHandler);
    // The directory is still the old one, so the call waits for the next.
    Story::connected(Mode::Dom0, kind.clone())
        .on(REMOVE, FsmAction::Release)
        .on(ADD, None)
        .then_reads(Event::Released, in_use(&kind), FsmAction::PublishDisconnected)
        .then_reads(DONE, disconnected(&kind), None)
        .reads(initialising(&kind), None)
        .reads(ready(&kind), FsmAction::RunHandler);
    // The release fails at first.
    Story::connected(Mode::Dom0, kind.clone())
        .reads(absent(&kind), FsmAction::Release)
        .on(Event::ReleaseFailed, None)
        .on(ADD, FsmAction::Release)
        .then_reads(Event::Released, ready(&kind), FsmAction::RunHandler);
}

#[test]
fn directory_recreated_under_handler_waits_for_its_own_add() {
    let kind = Kind::VBD;
    let published = || {
        let mut story = Story::new(Mode::Dom0, kind.clone());
        story
            .then_reads(ADD, ready(&kind), FsmAction::RunHandler)
            .on(Event::HandlerDone, FsmAction::Publish);
        story
    };
    published()
        .on(STALE, FsmAction::Release)
        .then_reads(Event::Released, ready(&kind), None)
        .is(Phase::Waiting);
    published().on(ADD, None).on(STALE, FsmAction::Release).then_reads(
        Event::Released,
        ready(&kind),
        FsmAction::RunHandler,
    );
}

#[test]
fn remove_releases_whatever_the_store_says() {
    let kind = Kind::VBD;
    let closing = Observation {
        state: XenbusState::Closing,
        online: false,
        ..in_use(&kind)
    };
    for read in [in_use(&kind), closing, closed(&kind)] {
        let mut story = Story::connected(Mode::Dom0, kind.clone());
        story
            .on(REMOVE, FsmAction::Release)
            .then_reads(Event::Released, read, FsmAction::PublishDisconnected)
            .on(DONE, None)
            .is(Phase::Released { published: true });
        assert!(!story.0.remove_pending());
    }
    Story::connected(Mode::Dom0, kind.clone())
        .on(REMOVE, FsmAction::Release)
        .then_reads(Event::Released, absent(&kind), FsmAction::Forget);
    // During the handler, or the publish after it.
    Story::new(Mode::Dom0, kind.clone())
        .then_reads(ADD, ready(&kind), FsmAction::RunHandler)
        .on(REMOVE, FsmAction::StopHandler)
        .on(Event::HandlerDone, FsmAction::Release)
        .then_reads(Event::Released, ready(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None);
    for published in [DONE, UNKNOWN] {
        Story::new(Mode::Dom0, kind.clone())
            .then_reads(ADD, ready(&kind), FsmAction::RunHandler)
            .on(Event::HandlerDone, FsmAction::Publish)
            .on(REMOVE, None)
            .then_reads(published, in_use(&kind), FsmAction::Release)
            .then_reads(Event::Released, in_use(&kind), FsmAction::PublishDisconnected);
    }
}

#[test]
fn remove_voids_an_add_without_a_handler() {
    let kind = Kind::VIF;
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .then_reads(ADD, initialising(&kind), None)
        .then_reads(REMOVE, ready(&kind), None)
        .is(Phase::Waiting);
    assert!(!story.0.add_pending() && !story.0.remove_pending());
}

#[test]
fn remove_of_failed_device_publishes_disconnected() {
    let kind = Kind::VBD;
    Story::failed(Mode::Dom0, kind.clone())
        .then_reads(REMOVE, with_error(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None)
        .is(Phase::Released { published: true });
    // The same if the release failed and the failure was to be published after it.
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .then_reads(ADD, ready(&kind), FsmAction::RunHandler)
        .on(Event::HandlerFailed, FsmAction::Release)
        .on(Event::ReleaseFailed, None)
        .on(REMOVE, FsmAction::Release)
        .then_reads(Event::Released, absent(&kind), FsmAction::Forget);
}

#[test]
fn foreign_device_is_never_released() {
    let kind = Kind::VBD;
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .then_reads(REMOVE, in_use(&kind), None)
        .is(Phase::Foreign)
        .then_reads(REMOVE, closed(&kind), None)
        .is(Phase::Foreign);
    // The same if the daemon had connected a device there before.
    Story::connected(Mode::Dom0, kind.clone())
        .reads(closed(&kind), FsmAction::Release)
        .then_reads(Event::Released, closed(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None)
        .reads(in_use(&kind), None)
        .is(Phase::Foreign);
}

#[test]
fn refused_disconnected_is_published_at_the_next_read() {
    let kind = Kind::VBD;
    Story::connected(Mode::Dom0, kind.clone())
        .on(REMOVE, FsmAction::Release)
        .then_reads(Event::Released, in_use(&kind), FsmAction::PublishDisconnected)
        .on(REFUSED, None)
        .is(Phase::Released { published: false })
        .reads(in_use(&kind), FsmAction::PublishDisconnected)
        .on(DONE, None)
        .is(Phase::Released { published: true });
}

#[test]
fn requested_device_needs_no_add_and_is_removed_by_us() {
    let kind = Kind::VBD;
    let requested = |read| Observation {
        requested: true,
        ..read
    };
    let mut story = Story::new(Mode::Dom0, kind.clone());
    story
        .reads(requested(ready(&kind)), FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(DONE, None)
        .is(Phase::Connected)
        .reads(requested(closed(&kind)), FsmAction::Release)
        .then_reads(
            Event::Released,
            requested(closed(&kind)),
            FsmAction::PublishDisconnected,
        )
        .on(DONE, FsmAction::RemoveDirectory)
        .on(DONE, FsmAction::Forget);
    // The next device with this key is the toolstack's own.
    story
        .reads(ready(&kind), None)
        .is(Phase::Waiting)
        .then_reads(ADD, ready(&kind), FsmAction::RunHandler);
}
