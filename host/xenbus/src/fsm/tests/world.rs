//! Random runs of one device with its store, kernel, toolstack, handler and daemon, whose steps come in any order and
//! whose events come late, twice or never.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// Directory of the device.
#[derive(Clone, Debug)]
struct Directory {
    /// The guest, since its domain id is reused by the next.
    vm: u32,
    state: XenbusState,
    online: bool,
    status: HotplugStatus,
    /// The daemon wrote `connected`.
    ours: bool,
}

/// Held resources, with their record in the journal.
#[derive(Clone, Debug)]
struct Hold {
    vm: u32,
    complete: bool,
}

/// Action or event under way.
#[derive(Clone, Debug)]
enum Pending {
    /// An action with the machine's identity at that time.
    Do(FsmAction, Option<Identity>),
    Deliver(Event),
}

#[derive(Debug)]
struct World {
    mode: Mode,
    kind: Kind,
    /// The daemon may read the guest's `vm` node.
    vm_readable: bool,
    directory: Option<Directory>,
    vms: u32,
    frontend_gone: bool,
    link: bool,
    hold: Option<Hold>,
    /// Record of the journal: the guest, and whether the release has begun.
    record: Option<(u32, bool)>,
    fsm: DeviceFsm,
    pending: Vec<Pending>,
    /// A script call allows a handler that has not run yet.
    called: bool,
    /// Guest whose handler ran last.
    handled: Option<u32>,
}

/// Outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Succeeds,
    /// It fails and does nothing.
    Fails,
    /// A write succeeds with an unknown outcome; other operations fail.
    UnknownSuccess,
    /// A write fails with an unknown outcome; other operations fail.
    UnknownFailure,
}

/// Step of any party.
#[derive(Clone, Debug)]
enum Step {
    /// A pending action or event arrives.
    Arrive { which: Index, fate: Fate },
    /// An event that may be repeated arrives and stays pending.
    ArriveTwice(Index),
    /// An event that may be lost is lost.
    Lose(Index),
    /// A watch fires.
    Change,
    /// The toolstack creates the device, for the next guest or the same one, even over an existing directory.
    Create { next: bool },
    /// The toolstack detaches the device.
    Detach,
    /// The toolstack removes the directory.
    Remove,
    /// The guest ends.
    Destroy,
    /// The backend proceeds to its next state.
    Serve,
    /// The guest closes its device, as when it reboots.
    Close,
    /// Somebody resets the state of a connected device.
    Reset,
    /// The link appears.
    Link,
    /// Somebody else sets the device up.
    ConnectByOther,
    /// A script calls, or its caller no longer waits.
    Call(Event),
    /// The daemon is killed and started; held resources may be gone then.
    Restart { lost: bool },
}

impl World {
    fn new(mode: Mode, kind: Kind, vm_readable: bool) -> Self {
        let fsm = DeviceFsm::new(mode, kind.clone());
        Self {
            mode,
            kind,
            vm_readable,
            directory: None,
            vms: 0,
            frontend_gone: false,
            link: false,
            hold: None,
            record: None,
            fsm,
            pending: Vec::new(),
            called: false,
            handled: None,
        }
    }

    fn identity_of(&self, vm: u32) -> Identity {
        Identity {
            vm: self.vm_readable.then(|| format!("/vm/{vm}")),
            ..identity(&self.kind, None)
        }
    }

    fn observe(&self) -> Observation {
        let Some(found) = &self.directory else {
            return absent(&self.kind);
        };
        Observation {
            present: true,
            identity: self.identity_of(found.vm),
            state: found.state,
            online: found.online,
            frontend_gone: self.frontend_gone,
            // A handler may rename the link, after which a read does not find it.
            served: false,
            netdev: !self.kind.needs_netdev() || (self.link && self.hold.is_none()),
            status: found.status,
            requested: false,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Arrive { which, fate } => {
                if !self.pending.is_empty() {
                    let pending = self.pending.remove(which.index(self.pending.len()));
                    self.arrive(pending, fate);
                }
            }
            Step::ArriveTwice(which) => {
                if let Some(index) = self.loose(which) {
                    let pending = self.pending[index].clone();
                    self.arrive(pending, Fate::Succeeds);
                }
            }
            Step::Lose(which) => {
                if let Some(index) = self.loose(which) {
                    self.pending.remove(index);
                }
            }
            Step::Change => self.pending.push(Pending::Deliver(Event::Changed)),
            Step::Create { next } => {
                self.vms += u32::from(next || self.directory.is_none() || self.frontend_gone);
                self.frontend_gone = false;
                self.link = false;
                let (state, status) = (XenbusState::Initialising, HotplugStatus::None);
                self.directory = Some(Directory {
                    vm: self.vms,
                    state,
                    online: true,
                    status,
                    ours: false,
                });
            }
            Step::Detach => {
                if let Some(directory) = &mut self.directory {
                    directory.online = false;
                    directory.state = XenbusState::Closing;
                }
            }
            Step::Remove => self.directory = None,
            Step::Destroy => self.frontend_gone = self.directory.is_some(),
            Step::Serve => self.serve(),
            Step::Close => {
                if let Some(found) = self
                    .directory
                    .as_mut()
                    .filter(|found| found.state == XenbusState::Connected)
                {
                    found.state = XenbusState::Closed;
                }
            }
            Step::Reset => {
                let gone = self.frontend_gone;
                let used = |found: &&mut Directory| found.ours && found.online && !gone;
                if let Some(found) = self.directory.as_mut().filter(used) {
                    found.state = XenbusState::Initialising;
                }
            }
            Step::Link => {
                self.link |= self
                    .directory
                    .as_ref()
                    .is_some_and(|found| found.state == XenbusState::InitWait);
            }
            Step::ConnectByOther => {
                let at = self.kind.handler_state();
                let waits = |found: &&mut Directory| found.state == at && found.status == HotplugStatus::None;
                if let Some(directory) = self.directory.as_mut().filter(waits) {
                    directory.status = HotplugStatus::Connected;
                }
            }
            Step::Call(event) => self.pending.push(Pending::Deliver(event)),
            Step::Restart { lost } => self.restart(lost),
        }
    }

    /// Picks a pending read or change, which may be lost or repeated. Completions come once.
    fn loose(&self, which: Index) -> Option<usize> {
        let is_loose = |pending: &Pending| {
            matches!(
                pending,
                Pending::Deliver(Event::Changed | Event::StateRead(..)) | Pending::Do(FsmAction::ReadState(_), _)
            )
        };
        let loose: Vec<usize> = (0..self.pending.len())
            .filter(|index| is_loose(&self.pending[*index]))
            .collect();
        if loose.is_empty() {
            None
        } else {
            Some(*which.get(&loose))
        }
    }

    /// Takes one step of the backend.
    fn serve(&mut self) {
        use XenbusState::{Closed, Closing, Connected, InitWait, Initialising};
        let waits_for_us = self.kind.handler_state() == Initialising;
        let Some(found) = &mut self.directory else { return };
        let connected = found.status == HotplugStatus::Connected;
        found.state = match found.state {
            Initialising if !waits_for_us || connected => InitWait,
            InitWait if connected && !self.frontend_gone => Connected,
            Closing => Closed,
            // The guest has rebooted.
            Closed if found.online && !self.frontend_gone => InitWait,
            _ if self.frontend_gone => Closed,
            state => state,
        };
    }

    fn restart(&mut self, lost: bool) {
        self.pending.clear();
        self.called = false;
        self.pending.push(Pending::Deliver(Event::Changed));
        let Some((vm, releasing)) = self.record else {
            self.fsm = DeviceFsm::new(self.mode, self.kind.clone());
            return;
        };
        let identity = self.identity_of(vm);
        let read = self.observe();
        let published = read.status == HotplugStatus::Connected;
        let complete = self.hold.as_ref().is_some_and(|hold| hold.complete);
        let found = match (complete && !lost, read.is_of(&identity) && !read.leaving()) {
            (_, true) if releasing && published && self.mode == Mode::DriverDomain => RecoveredState::Lost,
            _ if releasing => RecoveredState::Unfinished,
            (true, true) => RecoveredState::Connected,
            // A device that no backend uses yet is withdrawn and, since a script called, connected again.
            (false, true) if published && read.withdrawable(&identity) => {
                self.directory.as_mut().unwrap().status = HotplugStatus::Error;
                self.pending.push(Pending::Deliver(Event::Add));
                RecoveredState::Unfinished
            }
            (false, true) if published => RecoveredState::Lost,
            _ => RecoveredState::Unfinished,
        };
        self.fsm = DeviceFsm::adopted(self.mode, identity, found);
    }

    fn arrive(&mut self, pending: Pending, fate: Fate) {
        match pending {
            Pending::Do(action, identity) => {
                if let Some(event) = self.carry_out(action, identity, fate) {
                    self.pending.push(Pending::Deliver(event));
                }
            }
            Pending::Deliver(event) => {
                match event {
                    Event::Add => self.called = true,
                    Event::Remove | Event::AddCancelled => self.called = false,
                    _ => {}
                }
                let action = self.fsm.apply(&event);
                if action == Some(FsmAction::RunHandler) {
                    assert!(self.called || self.mode == Mode::DriverDomain, "no script called");
                    self.called = false;
                }
                if self.fsm.phase().settled() || action == Some(FsmAction::RunHandler) {
                    self.record = None;
                }
                match action {
                    None | Some(FsmAction::StopHandler) => {}
                    Some(FsmAction::Forget) => {
                        assert!(self.hold.is_none(), "resources are held for a forgotten device");
                        self.fsm = DeviceFsm::new(self.mode, self.kind.clone());
                        // Reads belong to the old machine; other events remain.
                        self.pending
                            .retain(|pending| matches!(pending, Pending::Deliver(event) if is_external(event)));
                    }
                    Some(action) => self.pending.push(Pending::Do(action, self.fsm.identity().cloned())),
                }
                let in_flight = |pending: &&Pending| match pending {
                    Pending::Do(action, _) => !matches!(action, FsmAction::ReadState(_)),
                    Pending::Deliver(event) => !is_external(event) && !matches!(event, Event::StateRead(..)),
                };
                assert!(
                    self.pending.iter().filter(in_flight).count() <= 1,
                    "two operations at once: {self:?}"
                );
            }
        }
    }

    /// Carries out an action as the daemon does: each write is one transaction that reads again.
    fn carry_out(&mut self, action: FsmAction, identity: Option<Identity>, fate: Fate) -> Option<Event> {
        let read = self.observe();
        let own = |holds: bool| if holds { WriteOutcome::Done } else { WriteOutcome::Stale };
        let identity = identity.unwrap_or_else(|| read.identity.clone());
        let store = !matches!(action, FsmAction::RunHandler | FsmAction::Release);
        let failed = fate == Fate::Fails || fate == Fate::UnknownFailure || (fate == Fate::UnknownSuccess && !store);
        let outcome = match action {
            FsmAction::ReadState(ticket) => return Some(Event::StateRead(ticket, read)),
            FsmAction::RunHandler => {
                assert!(self.hold.is_none(), "a handler runs while resources are held");
                self.handled = self.directory.as_ref().map(|found| found.vm);
                // It may fail with all resources, with some or, without a device, with none.
                let Some(vm) = self.handled.filter(|_| read.is_of(&identity)) else {
                    return Some(Event::HandlerFailed);
                };
                self.hold = Some(Hold { vm, complete: !failed });
                self.record = Some((vm, false));
                return Some(if failed {
                    Event::HandlerFailed
                } else {
                    Event::HandlerDone
                });
            }
            FsmAction::Release => {
                if let Some((_, releasing)) = &mut self.record {
                    *releasing = true;
                }
                if failed {
                    return Some(Event::ReleaseFailed);
                }
                self.hold = None;
                return Some(Event::Released);
            }
            FsmAction::Publish => own(read.connectable(&identity)),
            FsmAction::Withdraw => own(read.withdrawable(&identity)),
            FsmAction::PublishFailure => own(self.fsm.accepts_failure(&read)),
            FsmAction::PublishDisconnected => own(read.is_of(&identity)),
            FsmAction::RemoveDirectory => own(read.is_of(&identity) && read.leaving()),
            FsmAction::StopHandler | FsmAction::Forget => unreachable!("taken at once"),
        };
        let outcome = if failed && outcome == WriteOutcome::Done {
            WriteOutcome::Failed
        } else {
            outcome
        };
        if outcome == WriteOutcome::Done {
            self.write(action);
        }
        let unknown = matches!(fate, Fate::UnknownSuccess | Fate::UnknownFailure);
        Some(Event::Written(if unknown { WriteOutcome::Unknown } else { outcome }))
    }

    fn write(&mut self, action: FsmAction) {
        let directory = self.directory.as_mut().unwrap();
        match action {
            FsmAction::Publish => {
                // Guests without a readable `vm` node cannot be told apart.
                assert!(
                    !self.vm_readable || self.handled == Some(directory.vm),
                    "another device's resources are published"
                );
                directory.status = HotplugStatus::Connected;
                directory.ours = true;
            }
            FsmAction::Withdraw => {
                assert!(self.hold.is_some(), "withdrawn while nothing is held");
                directory.status = HotplugStatus::None;
            }
            FsmAction::PublishFailure => {
                let recreated = !directory.ours && directory.status == HotplugStatus::None;
                assert!(
                    !(self.fsm.lost && recreated),
                    "a recreated device gets the failure of a lost one"
                );
                directory.status = HotplugStatus::Error;
            }
            FsmAction::PublishDisconnected => {
                assert!(
                    self.hold.is_none(),
                    "disconnected is published while resources are held"
                );
                directory.status = HotplugStatus::Disconnected;
            }
            FsmAction::RemoveDirectory => {
                assert_eq!(self.mode, Mode::DriverDomain);
                assert!(self.hold.is_none(), "the directory is removed while resources are held");
                self.directory = None;
            }
            _ => unreachable!("writes nothing"),
        }
    }

    /// Delivers everything pending, successfully.
    fn settle(&mut self) {
        for _ in 0..1000 {
            if self.pending.is_empty() {
                return;
            }
            let pending = self.pending.remove(0);
            self.arrive(pending, Fate::Succeeds);
        }
        panic!("it does not settle: {self:?}");
    }

    /// Lets everything under way end, with a last read.
    fn come_to_rest(&mut self) {
        for _ in 0..4 {
            self.settle();
            for _ in 0..4 {
                self.serve();
                self.take(Step::Link);
            }
            self.take(Step::Change);
        }
        self.settle();
    }

    fn check(&self) {
        let phase = self.fsm.phase();
        assert_eq!(phase.holds(), self.hold.is_some(), "{self:?}");
        let Some(found) = &self.directory else {
            assert_eq!(phase, Phase::Absent, "{self:?}");
            return;
        };
        let read = self.observe();
        assert!(!self.fsm.remove_pending(), "{self:?}");
        if read.leaving() {
            assert_eq!(self.mode, Mode::Dom0, "a directory is left over: {self:?}");
            assert!(self.hold.is_none(), "{self:?}");
            let expected = match found.status {
                HotplugStatus::Connected => Phase::Foreign,
                HotplugStatus::Disconnected => Phase::Released { published: true },
                _ => Phase::Waiting,
            };
            assert_eq!(phase, expected, "{self:?}");
            assert!(!found.ours || phase != Phase::Foreign, "{self:?}");
            return;
        }
        match (found.status, &self.hold) {
            (HotplugStatus::Connected, Some(hold)) => {
                assert!(hold.complete, "{self:?}");
                assert!(!self.vm_readable || hold.vm == found.vm, "{self:?}");
                assert_eq!(phase, Phase::Connected, "{self:?}");
            }
            (HotplugStatus::Connected, None) => {
                assert!(!found.ours, "a connected device has lost what it holds: {self:?}");
                assert_eq!(phase, Phase::Foreign, "{self:?}");
            }
            (HotplugStatus::Error, None) => assert!(
                matches!(phase, Phase::Failed { published: true } | Phase::Waiting),
                "{self:?}"
            ),
            (_, None) => {
                let waits = read.state == self.kind.handler_state() && read.online && read.netdev;
                let wanted = self.fsm.add_pending() || self.mode == Mode::DriverDomain;
                assert!(!(waits && wanted), "a ready device is not connected: {self:?}");
                let published =
                    phase == Phase::Released { published: true } && found.status == HotplugStatus::Disconnected;
                assert!(
                    phase == Phase::Waiting || (published && self.mode == Mode::Dom0),
                    "{self:?}"
                );
            }
            (_, Some(_)) => panic!("resources are held for a device that is not connected: {self:?}"),
        }
    }
}

/// Tells whether an event is from outside and not an answer to the machine.
fn is_external(event: &Event) -> bool {
    matches!(event, Event::Changed | Event::Add | Event::Remove | Event::AddCancelled)
}

fn any_step() -> impl Strategy<Value = Step> {
    let which = any::<Index>;
    let fate = prop_oneof![
        17 => Just(Fate::Succeeds),
        1 => Just(Fate::Fails),
        1 => Just(Fate::UnknownSuccess),
        1 => Just(Fate::UnknownFailure),
    ];
    prop_oneof![
        24 => (which(), fate).prop_map(|(which, fate)| Step::Arrive { which, fate }),
        3 => which().prop_map(Step::ArriveTwice),
        3 => which().prop_map(Step::Lose),
        8 => Just(Step::Change),
        3 => any::<bool>().prop_map(|next| Step::Create { next }),
        2 => Just(Step::Detach),
        1 => Just(Step::Remove),
        1 => Just(Step::Destroy),
        8 => Just(Step::Serve),
        1 => Just(Step::Close),
        1 => Just(Step::Reset),
        3 => Just(Step::Link),
        1 => Just(Step::ConnectByOther),
        4 => Just(Step::Call(Event::Add)),
        1 => Just(Step::Call(Event::Remove)),
        1 => Just(Step::Call(Event::AddCancelled)),
        1 => prop::bool::weighted(0.3).prop_map(|lost| Step::Restart { lost }),
    ]
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::VBD, Kind::VIF, Kind::VBD3])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_ends_in_the_right_phase(
        mode in prop::sample::select(vec![Mode::DriverDomain, Mode::Dom0]),
        kind in any_kind(),
        vm_readable in any::<bool>(),
        steps in vec(any_step(), 0..120),
    ) {
        let mut world = World::new(mode, kind, vm_readable);
        for step in steps {
            world.take(step);
        }
        world.come_to_rest();
        world.check();
    }
}
