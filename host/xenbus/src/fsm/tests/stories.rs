//! Stories of a device, event by event.

use super::*;

/// State machine whose events and expected actions read as a story.
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

    /// Delivers `Changed` and answers the read with this observation.
    #[track_caller]
    pub(super) fn reads(&mut self, read: Observation, action: impl Into<Option<FsmAction>>) -> &mut Self {
        let Some(FsmAction::ReadState(ticket)) = self.0.apply(&Event::Changed) else {
            panic!("no read: {:?}", self.0)
        };
        self.on(Event::StateRead(ticket, read), action)
    }

    /// Delivers an event that requests a read and answers the read with this observation.
    #[track_caller]
    pub(super) fn then_reads(
        &mut self,
        event: Event,
        read: Observation,
        action: impl Into<Option<FsmAction>>,
    ) -> &mut Self {
        let Some(FsmAction::ReadState(ticket)) = self.0.apply(&event) else {
            panic!("no read: {:?}", self.0)
        };
        self.on(Event::StateRead(ticket, read), action)
    }

    #[track_caller]
    pub(super) fn is(&mut self, phase: Phase) -> &mut Self {
        assert_eq!(self.0.phase(), phase);
        self
    }

    /// Connects a device.
    #[track_caller]
    pub(super) fn connected(mode: Mode, kind: Kind) -> Self {
        let mut story = Self::new(mode, kind.clone());
        story
            .then_reads(Event::Add, ready(&kind), FsmAction::RunHandler)
            .on(Event::HandlerDone, FsmAction::Publish)
            .on(DONE, None);
        story.is(Phase::Connected);
        story
    }

    /// Fails a device's handler.
    #[track_caller]
    pub(super) fn failed(mode: Mode, kind: Kind) -> Self {
        let mut story = Self::new(mode, kind.clone());
        story
            .then_reads(Event::Add, ready(&kind), FsmAction::RunHandler)
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
fn driver_domain_connects_and_removes_a_device() {
    for kind in [Kind::VBD, Kind::VIF, Kind::VBD3, Kind::QDISK] {
        Story::connected(Mode::DriverDomain, kind.clone())
            .reads(in_use(&kind), None)
            .reads(closed(&kind), FsmAction::Release)
            .then_reads(Event::Released, closed(&kind), FsmAction::PublishDisconnected)
            .on(DONE, FsmAction::RemoveDirectory)
            .on(DONE, FsmAction::Forget)
            .is(Phase::Absent);
    }
}

#[test]
fn rebooting_guest_keeps_its_devices() {
    let kind = Kind::VIF;
    let mut story = Story::connected(Mode::DriverDomain, kind.clone());
    for state in [4, 5, 6, 2, 4].map(|number| XenbusState::ALL[number]) {
        story
            .reads(Observation { state, ..in_use(&kind) }, None)
            .is(Phase::Connected);
    }
}

#[test]
fn vif_waits_for_its_link_and_offline_device_for_its_end() {
    let kind = Kind::VIF;
    Story::new(Mode::DriverDomain, kind.clone())
        .reads(
            Observation {
                netdev: false,
                ..ready(&kind)
            },
            None,
        )
        .is(Phase::Waiting)
        .reads(
            Observation {
                online: false,
                ..ready(&kind)
            },
            None,
        )
        .reads(ready(&kind), FsmAction::RunHandler)
        // The handler may have renamed the link.
        .reads(
            Observation {
                netdev: false,
                ..ready(&kind)
            },
            None,
        )
        .on(Event::HandlerDone, FsmAction::Publish);
}

#[test]
fn device_gone_during_handler_is_released_unpublished() {
    let kind = Kind::VBD;
    let other = Observation {
        identity: identity(&kind, Some("b")),
        ..ready(&kind)
    };
    let losses = [
        absent(&kind),
        closed(&kind),
        other,
        Observation {
            frontend_gone: true,
            ..ready(&kind)
        },
        Observation {
            online: false,
            ..ready(&kind)
        },
        Observation {
            state: XenbusState::Closing,
            ..ready(&kind)
        },
        Observation {
            state: XenbusState::Initialising,
            ..ready(&kind)
        },
        Observation {
            status: HotplugStatus::Connected,
            ..ready(&kind)
        },
        in_use(&kind),
    ];
    for lost in losses {
        for end in [Event::HandlerDone, Event::HandlerFailed] {
            Story::new(Mode::DriverDomain, kind.clone())
                .reads(ready(&kind), FsmAction::RunHandler)
                .reads(lost.clone(), FsmAction::StopHandler)
                // The handler is stopped once, and a later read does not undo that.
                .reads(ready(&kind), None)
                .on(end, FsmAction::Release)
                .then_reads(Event::Released, absent(&kind), FsmAction::Forget);
        }
    }
}

#[test]
fn backend_process_may_change_state_during_handler() {
    let kind = Kind::QDISK;
    Story::new(Mode::DriverDomain, kind.clone())
        .reads(ready(&kind), FsmAction::RunHandler)
        .reads(
            Observation {
                state: XenbusState::InitWait,
                status: HotplugStatus::Connected,
                ..ready(&kind)
            },
            None,
        )
        .on(Event::HandlerDone, FsmAction::Publish);
}

#[test]
fn lost_device_is_released_and_its_failure_published() {
    for mode in [Mode::DriverDomain, Mode::Dom0] {
        for kind in [Kind::VBD, Kind::QDISK] {
            let mut story = Story::connected(mode, kind.clone());
            story.reads(in_use(&kind), None);
            let Some(FsmAction::ReadState(ticket)) = story.0.apply(&Event::Changed) else {
                panic!("no read: {:?}", story.0)
            };
            story
                .on(Event::Lost, FsmAction::Release)
                // The read was pending.
                .on(Event::StateRead(ticket, in_use(&kind)), None)
                .on(Event::Lost, None)
                .on(Event::Released, FsmAction::PublishFailure)
                .then_reads(
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
fn qdisk_connected_by_its_qemu_still_gets_its_handler() {
    let kind = Kind::QDISK;
    for state in [XenbusState::InitWait, XenbusState::Connected] {
        let taken_up = |served| Observation {
            state,
            served,
            ..in_use(&kind)
        };
        Story::new(Mode::DriverDomain, kind.clone())
            .reads(taken_up(true), FsmAction::RunHandler)
            .reads(taken_up(true), None)
            .on(Event::HandlerDone, FsmAction::Publish)
            .on(DONE, None)
            .reads(taken_up(true), None)
            .is(Phase::Connected);
        Story::new(Mode::DriverDomain, kind.clone())
            .reads(taken_up(false), None)
            .is(Phase::Foreign);
        // A failure is that of an earlier QEMU.
        Story::new(Mode::DriverDomain, kind.clone())
            .reads(
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
fn unserved_qdisk_is_leaving_once_offline() {
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
        .reads(offline(HotplugStatus::Error), FsmAction::PublishDisconnected)
        .on(DONE, FsmAction::RemoveDirectory)
        .on(DONE, FsmAction::Forget);
    assert!(
        offline(HotplugStatus::Disconnected).leaving(),
        "the condition of its removal"
    );
}

#[test]
fn qdisk_of_ended_qemu_is_removed_once_its_error_is_read() {
    let kind = Kind::QDISK;
    let closing = |served, status| Observation {
        state: XenbusState::Closing,
        online: false,
        served,
        status,
        ..in_use(&kind)
    };
    let (connected, error) = (HotplugStatus::Connected, HotplugStatus::Error);
    // Detached before its handler is done; another disk's QEMU continues and will close this one.
    Story::connected(Mode::DriverDomain, kind.clone())
        .reads(
            Observation {
                frontend_gone: true,
                ..closing(true, connected)
            },
            FsmAction::Release,
        )
        .then_reads(Event::Released, closing(true, connected), None)
        .is(Phase::Foreign)
        // QEMU ended with that other disk, and the daemon wrote the error.
        .reads(closing(false, error), FsmAction::PublishDisconnected)
        .on(DONE, FsmAction::RemoveDirectory);
    // An unknown QEMU closes the device that it serves.
    Story::new(Mode::DriverDomain, kind.clone()).reads(closing(false, connected), None);
}

#[test]
fn directory_gone_before_publish_is_released() {
    let kind = Kind::VBD;
    Story::new(Mode::DriverDomain, kind.clone())
        .reads(ready(&kind), FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(STALE, FsmAction::Release)
        .then_reads(Event::Released, absent(&kind), FsmAction::Forget);
}

#[test]
fn refused_publish_is_released_and_fails() {
    let kind = Kind::VBD;
    Story::new(Mode::DriverDomain, kind.clone())
        .reads(ready(&kind), FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(REFUSED, FsmAction::Release)
        .on(Event::Released, FsmAction::PublishFailure)
        .on(REFUSED, None)
        .is(Phase::Failed { published: false })
        // The failure is published again, and the handler does not run again.
        .reads(ready(&kind), FsmAction::PublishFailure)
        .on(DONE, None)
        .is(Phase::Failed { published: true });
}

#[test]
fn unknown_write_outcome_is_read_again() {
    for kind in [Kind::VBD, Kind::VBD3] {
        let published = || {
            let mut story = Story::new(Mode::DriverDomain, kind.clone());
            story
                .reads(ready(&kind), FsmAction::RunHandler)
                .on(Event::HandlerDone, FsmAction::Publish);
            story
        };
        published()
            .then_reads(UNKNOWN, in_use(&kind), None)
            .is(Phase::Connected);
        published().then_reads(UNKNOWN, ready(&kind), FsmAction::Release);
        published().then_reads(UNKNOWN, absent(&kind), FsmAction::Release);
    }
    let kind = Kind::VBD;
    let with_error = Observation {
        status: HotplugStatus::Error,
        ..ready(&kind)
    };
    Story::new(Mode::DriverDomain, kind.clone())
        .reads(ready(&kind), FsmAction::RunHandler)
        .on(Event::HandlerFailed, FsmAction::Release)
        .on(Event::Released, FsmAction::PublishFailure)
        .on(UNKNOWN, None)
        .reads(with_error, FsmAction::PublishFailure);
    Story::connected(Mode::DriverDomain, kind.clone())
        .reads(closed(&kind), FsmAction::Release)
        .then_reads(Event::Released, closed(&kind), FsmAction::PublishDisconnected)
        .then_reads(UNKNOWN, closed(&kind), FsmAction::PublishDisconnected)
        .on(DONE, FsmAction::RemoveDirectory)
        .then_reads(UNKNOWN, absent(&kind), FsmAction::Forget);
}

#[test]
fn failed_device_stays_failed_until_it_is_removed() {
    let kind = Kind::VIF;
    let failed = Observation {
        status: HotplugStatus::Error,
        ..ready(&kind)
    };
    let busy = Observation {
        status: HotplugStatus::Busy,
        ..ready(&kind)
    };
    let closed = Observation {
        status: HotplugStatus::Error,
        ..closed(&kind)
    };
    Story::failed(Mode::DriverDomain, kind.clone())
        .reads(failed.clone(), None)
        .reads(busy, None)
        .reads(
            Observation {
                state: XenbusState::Closing,
                ..failed
            },
            None,
        )
        .reads(closed, FsmAction::PublishDisconnected)
        .on(DONE, FsmAction::RemoveDirectory)
        .on(DONE, FsmAction::Forget);
}

#[test]
fn recreated_failed_device_is_retried() {
    let kind = Kind::VBD;
    Story::failed(Mode::DriverDomain, kind.clone())
        .reads(
            Observation {
                state: XenbusState::Initialising,
                ..ready(&kind)
            },
            None,
        )
        .is(Phase::Waiting)
        .reads(ready(&kind), FsmAction::RunHandler);
    // The same if state 1 was not read, or an operator emptied the status.
    Story::failed(Mode::DriverDomain, kind.clone()).reads(ready(&kind), FsmAction::RunHandler);
    let other = Observation {
        identity: identity(&kind, Some("b")),
        status: HotplugStatus::Error,
        ..ready(&kind)
    };
    Story::failed(Mode::DriverDomain, kind.clone()).reads(other, FsmAction::RunHandler);
    // Or somebody else has connected it meanwhile.
    Story::failed(Mode::DriverDomain, kind.clone())
        .reads(in_use(&kind), None)
        .is(Phase::Foreign);
}

#[test]
fn reused_domid_is_another_device() {
    let kind = Kind::VBD;
    let next = Observation {
        identity: identity(&kind, Some("b")),
        ..ready(&kind)
    };
    let mut story = Story::connected(Mode::DriverDomain, kind.clone());
    story
        .reads(next.clone(), FsmAction::Release)
        .then_reads(Event::Released, next.clone(), FsmAction::RunHandler);
    assert_eq!(story.0.identity(), Some(&next.identity));
}

#[test]
fn vm_path_known_later_is_fixed_from_then_on() {
    let kind = Kind::VBD;
    let nameless = Observation {
        identity: identity(&kind, None),
        ..ready(&kind)
    };
    let other = Observation {
        identity: identity(&kind, Some("b")),
        ..in_use(&kind)
    };
    Story::new(Mode::DriverDomain, kind.clone())
        .reads(nameless, FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(DONE, None)
        .reads(in_use(&kind), None)
        .reads(
            Observation {
                identity: identity(&kind, None),
                ..in_use(&kind)
            },
            None,
        )
        .reads(other, FsmAction::Release);
}

#[test]
fn foreign_device_is_removed_only_in_a_driver_domain() {
    let kind = Kind::VBD;
    Story::new(Mode::DriverDomain, kind.clone())
        .reads(in_use(&kind), None)
        .is(Phase::Foreign)
        .reads(closed(&kind), FsmAction::PublishDisconnected)
        .on(DONE, FsmAction::RemoveDirectory)
        .on(DONE, FsmAction::Forget);
    Story::new(Mode::Dom0, kind.clone())
        .reads(closed(&kind), None)
        .is(Phase::Foreign)
        .reads(absent(&kind), FsmAction::Forget);
    // The same if vif-bridge has removed the status.
    let offline = Observation {
        status: HotplugStatus::None,
        ..closed(&kind)
    };
    Story::new(Mode::Dom0, kind.clone())
        .reads(offline, None)
        .is(Phase::Waiting);
}

/// Connected device whose state somebody reset to 1.
fn reset(kind: &Kind) -> Observation {
    Observation {
        state: XenbusState::Initialising,
        ..in_use(kind)
    }
}

#[test]
fn reset_device_is_withdrawn_before_it_is_released() {
    for mode in [Mode::DriverDomain, Mode::Dom0] {
        let kind = Kind::VBD;
        Story::connected(mode, kind.clone())
            .reads(reset(&kind), FsmAction::Withdraw)
            .is(Phase::Withdrawing)
            .on(DONE, FsmAction::Release);
        // A connection that cannot be withdrawn stays held, and is withdrawn later.
        Story::connected(mode, kind.clone())
            .reads(reset(&kind), FsmAction::Withdraw)
            .on(REFUSED, None)
            .is(Phase::Connected)
            .reads(reset(&kind), FsmAction::Withdraw)
            .then_reads(UNKNOWN, reset(&kind), FsmAction::Withdraw)
            .then_reads(STALE, in_use(&kind), None)
            .is(Phase::Connected);
        // A recreated directory has nothing to withdraw.
        let recreated = Observation {
            status: HotplugStatus::None,
            ..reset(&kind)
        };
        Story::connected(mode, kind.clone()).reads(recreated, FsmAction::Release);
        // A kind whose handler runs at state 1 passes through it when its guest reboots.
        Story::connected(mode, Kind::QDISK).reads(reset(&Kind::QDISK), None);
    }
}

#[test]
fn failed_release_is_retried_before_anything_else() {
    let kind = Kind::VBD;
    let mut story = Story::connected(Mode::DriverDomain, kind.clone());
    story
        .reads(closed(&kind), FsmAction::Release)
        .on(Event::ReleaseFailed, None)
        .on(Event::Changed, FsmAction::Release)
        .then_reads(Event::Released, closed(&kind), FsmAction::PublishDisconnected);
}

#[test]
fn refused_removal_is_retried_at_the_next_read() {
    let kind = Kind::VBD;
    let disconnected = Observation {
        status: HotplugStatus::Disconnected,
        ..closed(&kind)
    };
    Story::connected(Mode::DriverDomain, kind.clone())
        .reads(closed(&kind), FsmAction::Release)
        .then_reads(Event::Released, closed(&kind), FsmAction::PublishDisconnected)
        // A status that cannot be written does not keep the directory.
        .on(REFUSED, FsmAction::RemoveDirectory)
        .on(REFUSED, None)
        .reads(disconnected, FsmAction::RemoveDirectory)
        // Recreated in the meantime, so the daemon must not remove it.
        .then_reads(STALE, ready(&kind), FsmAction::RunHandler);
}

#[test]
fn adopted_device_is_kept_if_connected_else_released() {
    let kind = Kind::VBD;
    let adopted = |found| {
        Story(DeviceFsm::adopted(
            Mode::DriverDomain,
            identity(&kind, Some("a")),
            found,
        ))
    };
    adopted(RecoveredState::Connected)
        .reads(in_use(&kind), None)
        .is(Phase::Connected);
    adopted(RecoveredState::Connected).reads(absent(&kind), FsmAction::Release);
    // The handler was done and nothing published.
    adopted(RecoveredState::Connected)
        .reads(ready(&kind), FsmAction::Release)
        .then_reads(Event::Released, ready(&kind), FsmAction::RunHandler);
    // A resource is gone.
    adopted(RecoveredState::Lost)
        .on(Event::Changed, FsmAction::Release)
        .on(Event::Released, FsmAction::PublishFailure)
        .on(DONE, None)
        .reads(
            Observation {
                status: HotplugStatus::Error,
                ..in_use(&kind)
            },
            None,
        )
        .is(Phase::Failed { published: true });
    adopted(RecoveredState::Unfinished)
        .on(Event::Changed, FsmAction::Release)
        .then_reads(Event::Released, ready(&kind), FsmAction::RunHandler);
}

#[test]
fn lost_device_publishes_failure_over_its_connected() {
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
                .reads(in_use(&kind), FsmAction::PublishFailure)
                .on(DONE, None)
                .is(Phase::Failed { published: true })
                // A later `connected` is somebody else's.
                .reads(in_use(&kind), None)
                .is(Phase::Foreign);
        }
        for mut story in [at_start(), later()] {
            story
                .on(Event::Released, FsmAction::PublishFailure)
                .on(UNKNOWN, None)
                .reads(absent(&kind), FsmAction::Forget)
                .is(Phase::Absent);
        }
        for mut story in [at_start(), later()] {
            story.on(Event::Released, FsmAction::PublishFailure);
            assert!(story.0.accepts_failure(&in_use(&kind)));
            // A recreated device has not failed.
            assert!(!story.0.accepts_failure(&ready(&kind)));
            let expected = (mode == Mode::DriverDomain).then_some(FsmAction::RunHandler);
            story.then_reads(Event::Written(WriteOutcome::Stale), ready(&kind), expected);
        }
    }
    // A device whose handler failed was never published as connected.
    let kind = Kind::VIF;
    Story::new(Mode::DriverDomain, kind.clone())
        .reads(ready(&kind), FsmAction::RunHandler)
        .on(Event::HandlerFailed, FsmAction::Release)
        .on(Event::Released, FsmAction::PublishFailure)
        .on(UNKNOWN, None)
        .reads(in_use(&kind), None)
        .is(Phase::Foreign);
}

#[test]
fn change_during_an_operation_is_read_after_it() {
    let kind = Kind::VBD;
    let mut story = Story::new(Mode::DriverDomain, kind.clone());
    story
        .reads(ready(&kind), FsmAction::RunHandler)
        .on(Event::HandlerDone, FsmAction::Publish)
        .on(Event::Changed, None)
        .on(Event::Changed, None)
        .then_reads(DONE, in_use(&kind), None)
        .is(Phase::Connected);
}

#[test]
fn read_from_before_a_publish_does_not_undo_it() {
    let kind = Kind::VBD;
    let mut story = Story::new(Mode::DriverDomain, kind.clone());
    story.reads(ready(&kind), FsmAction::RunHandler);
    let Some(FsmAction::ReadState(old)) = story.0.apply(&Event::Changed) else {
        panic!("no read")
    };
    story.on(Event::HandlerDone, FsmAction::Publish);
    // The read was pending, so another one follows and the first is outdated.
    let Some(FsmAction::ReadState(new)) = story.0.apply(&DONE) else {
        panic!("no read")
    };
    story
        .on(Event::StateRead(old, ready(&kind)), None)
        .on(Event::StateRead(new, in_use(&kind)), None)
        .is(Phase::Connected);
}
