//! The life of a device, step by step.

use super::*;

/// A machine with which to tell a story: each line is an event and the action that it is to bring about.
pub(super) struct Story(pub(super) DeviceFsm);

impl Story {
    pub(super) fn new(mode: Mode, kind: Kind) -> Self {
        Self(DeviceFsm::new(mode, kind))
    }

    #[track_caller]
    pub(super) fn on(&mut self, event: Event, action: impl Into<Option<FsmAction>>) -> &mut Self {
        assert_eq!(self.0.apply(&event), action.into(), "{:?}", self.0);
        self
    }

    /// Something changes, and this is found.
    #[track_caller]
    pub(super) fn sees(&mut self, seen: Observation, action: impl Into<Option<FsmAction>>) -> &mut Self {
        let Some(FsmAction::ReadState(ticket)) = self.0.apply(&Event::Changed) else {
            panic!("no look: {:?}", self.0)
        };
        self.on(Event::StateRead(ticket, seen), action)
    }

    /// An event, such as the end of an operation, that brings about a look, which finds this.
    #[track_caller]
    pub(super) fn then_sees(
        &mut self,
        event: Event,
        seen: Observation,
        action: impl Into<Option<FsmAction>>,
    ) -> &mut Self {
        let Some(FsmAction::ReadState(ticket)) = self.0.apply(&event) else {
            panic!("no look: {:?}", self.0)
        };
        self.on(Event::StateRead(ticket, seen), action)
    }

    #[track_caller]
    pub(super) fn is(&mut self, phase: Phase) -> &mut Self {
        assert_eq!(self.0.phase(), phase);
        self
    }

    /// A device that was plugged.
    #[track_caller]
    pub(super) fn connected(mode: Mode, kind: Kind) -> Self {
        let mut story = Self::new(mode, kind.clone());
        story
            .then_sees(Event::Add, wanted(&kind), FsmAction::RunHandler)
            .on(Event::HandlerDone, FsmAction::Publish)
            .on(DONE, None);
        story.is(Phase::Connected);
        story
    }

    /// A device whose handler failed.
    #[track_caller]
    pub(super) fn failed(mode: Mode, kind: Kind) -> Self {
        let mut story = Self::new(mode, kind.clone());
        story
            .then_sees(Event::Add, wanted(&kind), FsmAction::RunHandler)
            .on(Event::HandlerFailed, FsmAction::Release)
            .on(Event::Released, FsmAction::PublishFailure)
            .on(DONE, None)
            .is(Phase::Failed { published: true });
        story
    }
}

pub(super) const DONE: Event = Event::Written(WriteOutcome::Done);
pub(super) const STALE: Event = Event::Written(WriteOutcome::Stale);
pub(super) const REFUSED: Event = Event::Written(WriteOutcome::Failed);
pub(super) const UNKNOWN: Event = Event::Written(WriteOutcome::Unknown);

#[test]
fn a_device_is_plugged_and_unplugged_in_a_driver_domain() {
    for kind in [Kind::VBD, Kind::VIF, Kind::VBD3, Kind::QDISK] {
        Story::connected(Mode::DriverDomain, kind.clone())
            .sees(in_use(&kind), None)
            .sees(unplugged(&kind), FsmAction::Release)
            .then_sees(Event::Released, unplugged(&kind), FsmAction::PublishDisconnected)
            .on(DONE, FsmAction::RemoveDirectory)
            .on(DONE, FsmAction::Forget)
            .is(Phase::Absent);
    }
}

#[test]
fn a_guest_that_reboots_keeps_its_devices() {
    let kind = Kind::VIF;
    let mut story = Story::connected(Mode::DriverDomain, kind.clone());
    for state in [4, 5, 6, 2, 4].map(|number| XenbusState::ALL[number]) {
        story
            .sees(Observation { state, ..in_use(&kind) }, None)
            .is(Phase::Connected);
    }
}

#[test]
fn a_card_waits_for_its_link_and_a_device_without_online_for_its_end() {
    let kind = Kind::VIF;
    Story::new(Mode::DriverDomain, kind.clone())
        .sees(
            Observation {
                netdev: false,
                ..wanted(&kind)
            },
            None,
        )
        .is(Phase::Waiting)
        .sees(
            Observation {
                online: false,
                ..wanted(&kind)
            },
            None,
        )
        .sees(wanted(&kind), FsmAction::RunHandler)
        // The handler may have given the link another name.
        .sees(
            Observation {
                netdev: false,
                ..wanted(&kind)
            },
            None,
        )
        .on(Event::HandlerDone, FsmAction::Publish);
}

#[test]
fn a_device_that_is_lost_while_its_handler_runs_is_undone_and_never_published() {
    let kind = Kind::VBD;
    let other = Observation {
        identity: identity(&kind, Some("b")),
        ..wanted(&kind)
    };
    let losses = [
        absent(&kind),
        unplugged(&kind),
        other,
        Observation {
            frontend_gone: true,
            ..wanted(&kind)
        },
        Observation {
            online: false,
            ..wanted(&kind)
        },
        Observation {
            state: XenbusState::Closing,
            ..wanted(&kind)
        },
        Observation {
            state: XenbusState::Initialising,
            ..wanted(&kind)
        },
        Observation {
            status: HotplugStatus::Connected,
            ..wanted(&kind)
        },
        in_use(&kind),
    ];
    for lost in losses {
        for end in [Event::HandlerDone, Event::HandlerFailed] {
            Story::new(Mode::DriverDomain, kind.clone())
                .sees(wanted(&kind), FsmAction::RunHandler)
                .sees(lost.clone(), FsmAction::StopHandler)
                // It is told once, and a look that finds it again does not bring it back.
                .sees(wanted(&kind), None)
                .on(end, FsmAction::Release)
                .then_sees(Event::Released, absent(&kind), FsmAction::Forget);
        }
    }
}

#[test]
fn a_backend_that_its_handler_starts_may_move_on_by_itself() {
    let kind = Kind::QDISK;
    Story::new(Mode::DriverDomain, kind.clone())
        .sees(wanted(&kind), FsmAction::RunHandler)
        .sees(
            Observation {
                state: XenbusState::InitWait,
                status: HotplugStatus::Connected,
                ..wanted(&kind)
            },
            None,
        )
        .on(Event::HandlerDone, FsmAction::Publish);
}

#[test]
fn a_connection_that_is_lost_is_undone_and_told() {
    for mode in [Mode::DriverDomain, Mode::Dom0] {
        for kind in [Kind::VBD, Kind::QDISK] {
            let mut story = Story::connected(mode, kind.clone());
            story.sees(in_use(&kind), None);
            let Some(FsmAction::ReadState(ticket)) = story.0.apply(&Event::Changed) else {
                panic!("no look: {:?}", story.0)
            };
            story
                .on(Event::Lost, FsmAction::Release)
                // It was under way.
                .on(Event::StateRead(ticket, in_use(&kind)), None)
                .on(Event::Lost, None)
                .on(Event::Released, FsmAction::PublishFailure)
                .then_sees(
                    DONE,
                    Observation {
                        status: HotplugStatus::Error,
                        ..in_use(&kind)
                    },
                    None,
                )
                .is(Phase::Failed { published: true });
        }
    }
}

#[test]
fn a_qdisk_that_its_guests_qemu_took_up_first_still_gets_its_handler() {
    let kind = Kind::QDISK;
    for state in [XenbusState::InitWait, XenbusState::Connected] {
        let taken_up = |served| Observation {
            state,
            served,
            ..in_use(&kind)
        };
        Story::new(Mode::DriverDomain, kind.clone())
            .sees(taken_up(true), FsmAction::RunHandler)
            .sees(taken_up(true), None)
            .on(Event::HandlerDone, FsmAction::Publish)
            .on(DONE, None)
            .sees(taken_up(true), None)
            .is(Phase::Connected);
        Story::new(Mode::DriverDomain, kind.clone())
            .sees(taken_up(false), None)
            .is(Phase::Foreign);
        // One that has failed did so with another QEMU.
        Story::new(Mode::DriverDomain, kind.clone())
            .sees(
                Observation {
                    status: HotplugStatus::Error,
                    ..taken_up(true)
                },
                None,
            )
            .is(Phase::Waiting);
    }
}

#[test]
fn a_qdisk_that_nobody_serves_is_over_as_soon_as_it_is_offline() {
    let kind = Kind::QDISK;
    let offline = |status| Observation {
        state: XenbusState::Closing,
        online: false,
        status,
        ..in_use(&kind)
    };
    for status in HotplugStatus::ALL {
        assert_eq!(
            offline(status).leaving(),
            status != HotplugStatus::Connected,
            "{status:?}"
        );
        let of_kernel = Observation {
            identity: identity(&Kind::VBD, Some("a")),
            ..offline(status)
        };
        assert!(!of_kernel.leaving(), "the kernel closes it");
    }
    Story::failed(Mode::DriverDomain, kind.clone())
        .sees(offline(HotplugStatus::Error), FsmAction::PublishDisconnected)
        .on(DONE, FsmAction::RemoveDirectory)
        .on(DONE, FsmAction::Forget);
    assert!(
        offline(HotplugStatus::Disconnected).leaving(),
        "the condition of its removal"
    );
}

#[test]
fn a_qdisk_whose_qemu_ended_before_it_was_closed_is_over_once_that_is_told() {
    let kind = Kind::QDISK;
    let closing = |served, status| Observation {
        state: XenbusState::Closing,
        online: false,
        served,
        status,
        ..in_use(&kind)
    };
    let (connected, error) = (HotplugStatus::Connected, HotplugStatus::Error);
    // It is detached before its handler is done; another disk's QEMU goes on, and closes this one, or is about to.
    Story::connected(Mode::DriverDomain, kind.clone())
        .sees(
            Observation {
                frontend_gone: true,
                ..closing(true, connected)
            },
            FsmAction::Release,
        )
        .then_sees(Event::Released, closing(true, connected), None)
        .is(Phase::Foreign)
        // It ended with that other disk: whoever ended it has written this.
        .sees(closing(false, error), FsmAction::PublishDisconnected)
        .on(DONE, FsmAction::RemoveDirectory);
    // What an unknown QEMU has taken up is closed by that one.
    Story::new(Mode::DriverDomain, kind.clone()).sees(closing(false, connected), None);
}

#[test]
fn a_directory_that_went_before_its_connection_was_published_is_undone() {
    let kind = Kind::VBD;
    Story::new(Mode::DriverDomain, kind.clone())
        .sees(wanted(&kind), FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(STALE, FsmAction::Release)
        .then_sees(Event::Released, absent(&kind), FsmAction::Forget);
}

#[test]
fn a_connection_that_the_store_refuses_is_undone_and_fails() {
    let kind = Kind::VBD;
    Story::new(Mode::DriverDomain, kind.clone())
        .sees(wanted(&kind), FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(REFUSED, FsmAction::Release)
        .on(Event::Released, FsmAction::PublishFailure)
        .on(REFUSED, None)
        .is(Phase::Failed { published: false })
        // The failure is told again, and the handler does not run again.
        .sees(wanted(&kind), FsmAction::PublishFailure)
        .on(DONE, None)
        .is(Phase::Failed { published: true });
}

#[test]
fn a_connection_of_which_nobody_knows_whether_it_was_published_is_looked_at() {
    for kind in [Kind::VBD, Kind::VBD3] {
        let published = || {
            let mut story = Story::new(Mode::DriverDomain, kind.clone());
            story
                .sees(wanted(&kind), FsmAction::RunHandler)
                .on(Event::HandlerDone, FsmAction::Publish);
            story
        };
        published().then_sees(UNKNOWN, in_use(&kind), None).is(Phase::Connected);
        published().then_sees(UNKNOWN, wanted(&kind), FsmAction::Release);
        published().then_sees(UNKNOWN, absent(&kind), FsmAction::Release);
    }
    let kind = Kind::VBD;
    let told = Observation {
        status: HotplugStatus::Error,
        ..wanted(&kind)
    };
    Story::new(Mode::DriverDomain, kind.clone())
        .sees(wanted(&kind), FsmAction::RunHandler)
        .on(Event::HandlerFailed, FsmAction::Release)
        .on(Event::Released, FsmAction::PublishFailure)
        .on(UNKNOWN, None)
        .sees(told, FsmAction::PublishFailure);
    Story::connected(Mode::DriverDomain, kind.clone())
        .sees(unplugged(&kind), FsmAction::Release)
        .then_sees(Event::Released, unplugged(&kind), FsmAction::PublishDisconnected)
        .then_sees(UNKNOWN, unplugged(&kind), FsmAction::PublishDisconnected)
        .on(DONE, FsmAction::RemoveDirectory)
        .then_sees(UNKNOWN, absent(&kind), FsmAction::Forget);
}

#[test]
fn a_failed_device_stays_failed_until_it_goes() {
    let kind = Kind::VIF;
    let failed = Observation {
        status: HotplugStatus::Error,
        ..wanted(&kind)
    };
    let busy = Observation {
        status: HotplugStatus::Busy,
        ..wanted(&kind)
    };
    let unplugged = Observation {
        status: HotplugStatus::Error,
        ..unplugged(&kind)
    };
    Story::failed(Mode::DriverDomain, kind.clone())
        .sees(failed.clone(), None)
        .sees(busy, None)
        .sees(
            Observation {
                state: XenbusState::Closing,
                ..failed
            },
            None,
        )
        .sees(unplugged, FsmAction::PublishDisconnected)
        .on(DONE, FsmAction::RemoveDirectory)
        .on(DONE, FsmAction::Forget);
}

#[test]
fn a_failed_device_that_is_made_anew_is_tried_again() {
    let kind = Kind::VBD;
    Story::failed(Mode::DriverDomain, kind.clone())
        .sees(
            Observation {
                state: XenbusState::Initialising,
                ..wanted(&kind)
            },
            None,
        )
        .is(Phase::Waiting)
        .sees(wanted(&kind), FsmAction::RunHandler);
    // Also where the state in between was not seen, and where an operator emptied the status.
    Story::failed(Mode::DriverDomain, kind.clone()).sees(wanted(&kind), FsmAction::RunHandler);
    let other = Observation {
        identity: identity(&kind, Some("b")),
        status: HotplugStatus::Error,
        ..wanted(&kind)
    };
    Story::failed(Mode::DriverDomain, kind.clone()).sees(other, FsmAction::RunHandler);
    // Or somebody else has done it meanwhile.
    Story::failed(Mode::DriverDomain, kind.clone())
        .sees(in_use(&kind), None)
        .is(Phase::Foreign);
}

#[test]
fn reused_domid_is_another_device() {
    let kind = Kind::VBD;
    let next = Observation {
        identity: identity(&kind, Some("b")),
        ..wanted(&kind)
    };
    let mut story = Story::connected(Mode::DriverDomain, kind.clone());
    story
        .sees(next.clone(), FsmAction::Release)
        .then_sees(Event::Released, next.clone(), FsmAction::RunHandler);
    assert_eq!(story.0.identity(), Some(&next.identity));
}

#[test]
fn the_virtual_machine_may_become_known_later_and_is_the_same_from_then_on() {
    let kind = Kind::VBD;
    let nameless = Observation {
        identity: identity(&kind, None),
        ..wanted(&kind)
    };
    let other = Observation {
        identity: identity(&kind, Some("b")),
        ..in_use(&kind)
    };
    Story::new(Mode::DriverDomain, kind.clone())
        .sees(nameless, FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(DONE, None)
        .sees(in_use(&kind), None)
        .sees(
            Observation {
                identity: identity(&kind, None),
                ..in_use(&kind)
            },
            None,
        )
        .sees(other, FsmAction::Release);
}

#[test]
fn what_others_connected_is_left_to_them_and_removed_in_a_driver_domain() {
    let kind = Kind::VBD;
    Story::new(Mode::DriverDomain, kind.clone())
        .sees(in_use(&kind), None)
        .is(Phase::Foreign)
        .sees(unplugged(&kind), FsmAction::PublishDisconnected)
        .on(DONE, FsmAction::RemoveDirectory)
        .on(DONE, FsmAction::Forget);
    Story::new(Mode::Dom0, kind.clone())
        .sees(unplugged(&kind), None)
        .is(Phase::Foreign)
        .sees(absent(&kind), FsmAction::Forget);
    // Also where the status has been taken away, as vif-bridge does it.
    let offline = Observation {
        status: HotplugStatus::None,
        ..unplugged(&kind)
    };
    Story::new(Mode::Dom0, kind.clone())
        .sees(offline, None)
        .is(Phase::Waiting);
}

/// A connected device into whose state somebody has written 1.
fn set_back(kind: &Kind) -> Observation {
    Observation {
        state: XenbusState::Initialising,
        ..in_use(kind)
    }
}

#[test]
fn what_is_connected_is_taken_back_before_it_is_released_where_only_its_state_is_made_anew() {
    for mode in [Mode::DriverDomain, Mode::Dom0] {
        let kind = Kind::VBD;
        Story::connected(mode, kind.clone())
            .sees(set_back(&kind), FsmAction::Withdraw)
            .is(Phase::Withdrawing)
            .on(DONE, FsmAction::Release);
        // What cannot be taken back stays held, and is taken back later.
        Story::connected(mode, kind.clone())
            .sees(set_back(&kind), FsmAction::Withdraw)
            .on(REFUSED, None)
            .is(Phase::Connected)
            .sees(set_back(&kind), FsmAction::Withdraw)
            .then_sees(UNKNOWN, set_back(&kind), FsmAction::Withdraw)
            .then_sees(STALE, in_use(&kind), None)
            .is(Phase::Connected);
        // A directory that was made anew as a whole holds nothing to take back.
        let anew = Observation {
            status: HotplugStatus::None,
            ..set_back(&kind)
        };
        Story::connected(mode, kind.clone()).sees(anew, FsmAction::Release);
        // A kind whose handler runs at that state is at it when its guest comes again.
        Story::connected(mode, Kind::QDISK).sees(set_back(&Kind::QDISK), None);
    }
}

#[test]
fn what_cannot_be_released_is_tried_again_before_anything_else_happens() {
    let kind = Kind::VBD;
    let mut story = Story::connected(Mode::DriverDomain, kind.clone());
    story
        .sees(unplugged(&kind), FsmAction::Release)
        .on(Event::ReleaseFailed, None)
        .on(Event::Changed, FsmAction::Release)
        .then_sees(Event::Released, unplugged(&kind), FsmAction::PublishDisconnected);
}

#[test]
fn a_directory_that_cannot_be_removed_is_tried_again_at_the_next_look() {
    let kind = Kind::VBD;
    let told = Observation {
        status: HotplugStatus::Disconnected,
        ..unplugged(&kind)
    };
    Story::connected(Mode::DriverDomain, kind.clone())
        .sees(unplugged(&kind), FsmAction::Release)
        .then_sees(Event::Released, unplugged(&kind), FsmAction::PublishDisconnected)
        // A status that cannot be written does not keep the directory.
        .on(REFUSED, FsmAction::RemoveDirectory)
        .on(REFUSED, None)
        .sees(told, FsmAction::RemoveDirectory)
        // Made anew in the meantime: not ours to remove.
        .then_sees(STALE, wanted(&kind), FsmAction::RunHandler);
}

#[test]
fn start_up_keeps_what_is_connected_and_undoes_what_is_unfinished() {
    let kind = Kind::VBD;
    let adopted = |found| {
        Story(DeviceFsm::adopted(
            Mode::DriverDomain,
            identity(&kind, Some("a")),
            found,
        ))
    };
    adopted(RecoveredState::Connected)
        .sees(in_use(&kind), None)
        .is(Phase::Connected);
    adopted(RecoveredState::Connected).sees(absent(&kind), FsmAction::Release);
    // The handler was done, and nothing was published.
    adopted(RecoveredState::Connected)
        .sees(wanted(&kind), FsmAction::Release)
        .then_sees(Event::Released, wanted(&kind), FsmAction::RunHandler);
    // Something of it had gone.
    adopted(RecoveredState::Lost)
        .on(Event::Changed, FsmAction::Release)
        .on(Event::Released, FsmAction::PublishFailure)
        .on(DONE, None)
        .sees(
            Observation {
                status: HotplugStatus::Error,
                ..in_use(&kind)
            },
            None,
        )
        .is(Phase::Failed { published: true });
    adopted(RecoveredState::Unfinished)
        .on(Event::Changed, FsmAction::Release)
        .then_sees(Event::Released, wanted(&kind), FsmAction::RunHandler);
}

#[test]
fn what_was_lost_is_told_over_the_connected_that_still_stands_there() {
    for mode in [Mode::DriverDomain, Mode::Dom0] {
        let kind = Kind::VIF;
        let at_start = || {
            let mut story = Story(DeviceFsm::adopted(
                mode,
                identity(&kind, Some("a")),
                RecoveredState::Lost,
            ));
            story.on(Event::Changed, FsmAction::Release);
            story
        };
        let later = || {
            let mut story = Story::connected(mode, kind.clone());
            story.on(Event::Lost, FsmAction::Release);
            story
        };
        for mut story in [at_start(), later()] {
            story
                .on(Event::Released, FsmAction::PublishFailure)
                .on(UNKNOWN, None)
                .is(Phase::Failed { published: false })
                .sees(in_use(&kind), FsmAction::PublishFailure)
                .on(DONE, None)
                .is(Phase::Failed { published: true })
                // Whoever connects it after that is somebody else.
                .sees(in_use(&kind), None)
                .is(Phase::Foreign);
        }
        for mut story in [at_start(), later()] {
            story
                .on(Event::Released, FsmAction::PublishFailure)
                .on(UNKNOWN, None)
                .sees(absent(&kind), FsmAction::Forget)
                .is(Phase::Absent);
        }
        for mut story in [at_start(), later()] {
            story.on(Event::Released, FsmAction::PublishFailure);
            assert!(story.0.accepts_failure(&in_use(&kind)));
            // One that was made anew meanwhile has not failed.
            assert!(!story.0.accepts_failure(&wanted(&kind)));
            let expected = (mode == Mode::DriverDomain).then_some(FsmAction::RunHandler);
            story.then_sees(Event::Written(WriteOutcome::Stale), wanted(&kind), expected);
        }
    }
    // What failed by itself was never connected by us.
    let kind = Kind::VIF;
    Story::new(Mode::DriverDomain, kind.clone())
        .sees(wanted(&kind), FsmAction::RunHandler)
        .on(Event::HandlerFailed, FsmAction::Release)
        .on(Event::Released, FsmAction::PublishFailure)
        .on(UNKNOWN, None)
        .sees(in_use(&kind), None)
        .is(Phase::Foreign);
}

#[test]
fn a_change_during_an_operation_is_looked_at_after_it() {
    let kind = Kind::VBD;
    let mut story = Story::new(Mode::DriverDomain, kind.clone());
    story
        .sees(wanted(&kind), FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(Event::Changed, None)
        .on(Event::Changed, None)
        .then_sees(DONE, in_use(&kind), None)
        .is(Phase::Connected);
}

#[test]
fn a_look_from_before_the_publication_does_not_undo_it() {
    let kind = Kind::VBD;
    let mut story = Story::new(Mode::DriverDomain, kind.clone());
    story.sees(wanted(&kind), FsmAction::RunHandler);
    let Some(FsmAction::ReadState(old)) = story.0.apply(&Event::Changed) else {
        panic!("no look")
    };
    story.on(Event::HandlerDone, FsmAction::Publish);
    // It was still under way: so there is another one afterwards, and it no longer counts.
    let Some(FsmAction::ReadState(new)) = story.0.apply(&DONE) else {
        panic!("no look")
    };
    story
        .on(Event::StateRead(old, wanted(&kind)), None)
        .on(Event::StateRead(new, in_use(&kind)), None)
        .is(Phase::Connected);
}
