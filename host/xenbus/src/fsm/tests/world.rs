//! A device in a small world of its own: store, kernel, toolstack, handler and daemon, each of which may do its next
//! step at any time, and be told of the others' late, twice or never.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// The device's directory.
#[derive(Clone, Debug)]
struct Directory {
    /// Which virtual machine's: the domain id is used again by the next.
    vm: u32,
    state: XenbusState,
    online: bool,
    status: HotplugStatus,
    /// Whether it was us who wrote `connected`.
    ours: bool,
}

/// What is held on the machine, and in the journal.
#[derive(Clone, Debug)]
struct Hold {
    vm: u32,
    complete: bool,
}

/// Something on its way: to be done, or to be told.
#[derive(Clone, Debug)]
enum Pending {
    /// With the identity that the machine had when it asked for it.
    Do(FsmAction, Option<Identity>),
    Tell(Event),
}

#[derive(Debug)]
struct World {
    mode: Mode,
    kind: Kind,
    /// Whether we may read the guest's `vm` node.
    vm_readable: bool,
    directory: Option<Directory>,
    vms: u32,
    frontend_gone: bool,
    link: bool,
    hold: Option<Hold>,
    /// The journal's record: of which virtual machine, and whether it is being released or has been.
    record: Option<(u32, bool)>,
    machine: DeviceFsm,
    pending: Vec<Pending>,
    /// Whether a handler may run: in dom0, somebody asked for it, and none ran since.
    asked: bool,
    /// The virtual machine whose handler ran last, and of whose effects the connection consists.
    handled: Option<u32>,
}

/// How an operation goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Luck {
    Well,
    /// It fails, and nothing is done.
    Ill,
    /// Of a store operation nobody gets to know how it went, and it went well. Other operations fail.
    UnknownWell,
    /// The same, and it failed.
    UnknownIll,
}

/// One step of somebody's.
#[derive(Clone, Debug)]
enum Step {
    /// What is on its way arrives, whichever, and if it is to be done, goes well or ill.
    Arrive { which: Index, luck: Luck },
    /// What is told arrives, and once more later. Only what may be repeated is.
    ArriveTwice(Index),
    /// What is told gets lost. Only what may get lost does.
    Lose(Index),
    /// Somebody says that something changed.
    Change,
    /// The toolstack makes the device, for the next virtual machine or for the same one, also where it was.
    Make { next: bool },
    /// The toolstack asks for the device's end.
    Unplug,
    /// The toolstack removes the directory.
    Remove,
    /// The guest ends.
    Destroy,
    /// The kernel, or whatever serves the device, moves on.
    Serve,
    /// The guest closes its device, as when it reboots.
    Close,
    /// Somebody writes the state anew of a device that is connected.
    SetBack,
    /// The link appears.
    Link,
    /// Somebody else sets the device up.
    Meddle,
    /// The toolstack asks by its script, or no longer waits for what it asked.
    Ask(Event),
    /// The daemon is killed and started; what was held may be gone then.
    Restart { lost: bool },
}

impl World {
    fn new(mode: Mode, kind: Kind, vm_readable: bool) -> Self {
        let machine = DeviceFsm::new(mode, kind.clone());
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
            machine,
            pending: Vec::new(),
            asked: false,
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
            // A handler may rename the link, after which a look does not find it.
            served: false,
            netdev: !self.kind.needs_netdev() || (self.link && self.hold.is_none()),
            status: found.status,
            requested: false,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Arrive { which, luck } => {
                if !self.pending.is_empty() {
                    let pending = self.pending.remove(which.index(self.pending.len()));
                    self.arrive(pending, luck);
                }
            }
            Step::ArriveTwice(which) => {
                if let Some(index) = self.loose(which) {
                    let pending = self.pending[index].clone();
                    self.arrive(pending, Luck::Well);
                }
            }
            Step::Lose(which) => {
                if let Some(index) = self.loose(which) {
                    self.pending.remove(index);
                }
            }
            Step::Change => self.pending.push(Pending::Tell(Event::Changed)),
            Step::Make { next } => {
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
            Step::Unplug => {
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
            Step::SetBack => {
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
            Step::Meddle => {
                let at = self.kind.handler_state();
                let waits = |found: &&mut Directory| found.state == at && found.status == HotplugStatus::None;
                if let Some(directory) = self.directory.as_mut().filter(waits) {
                    directory.status = HotplugStatus::Connected;
                }
            }
            Step::Ask(event) => self.pending.push(Pending::Tell(event)),
            Step::Restart { lost } => self.restart(lost),
        }
    }

    /// Which of the pending may get lost or come twice: looks and changes. Completions come once.
    fn loose(&self, which: Index) -> Option<usize> {
        let is_loose = |pending: &Pending| {
            matches!(
                pending,
                Pending::Tell(Event::Changed | Event::StateRead(..)) | Pending::Do(FsmAction::ReadState(_), _)
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

    /// One step of what serves the device. Returns whether there was one to do.
    fn serve(&mut self) {
        use XenbusState::{Closed, Closing, Connected, InitWait, Initialising};
        let waits_for_us = self.kind.handler_state() == Initialising;
        let Some(found) = &mut self.directory else { return };
        let connected = found.status == HotplugStatus::Connected;
        found.state = match found.state {
            Initialising if !waits_for_us || connected => InitWait,
            InitWait if connected && !self.frontend_gone => Connected,
            Closing => Closed,
            // The guest is back.
            Closed if found.online && !self.frontend_gone => InitWait,
            _ if self.frontend_gone => Closed,
            state => state,
        };
    }

    fn restart(&mut self, lost: bool) {
        self.pending.clear();
        self.asked = false;
        self.pending.push(Pending::Tell(Event::Changed));
        let Some((vm, releasing)) = self.record else {
            self.machine = DeviceFsm::new(self.mode, self.kind.clone());
            return;
        };
        let identity = self.identity_of(vm);
        let seen = self.observe();
        let published = seen.status == HotplugStatus::Connected;
        let complete = self.hold.as_ref().is_some_and(|hold| hold.complete);
        let found = match (complete && !lost, seen.is_of(&identity) && !seen.leaving()) {
            (_, true) if releasing && published && self.mode == Mode::DriverDomain => RecoveredState::Lost,
            _ if releasing => RecoveredState::Unfinished,
            (true, true) => RecoveredState::Connected,
            // What the kernel has not taken up is told to be lost and, since it was asked for, done again.
            (false, true) if published && seen.withdrawable(&identity) => {
                self.directory.as_mut().unwrap().status = HotplugStatus::Error;
                self.pending.push(Pending::Tell(Event::Add));
                RecoveredState::Unfinished
            }
            (false, true) if published => RecoveredState::Lost,
            _ => RecoveredState::Unfinished,
        };
        self.machine = DeviceFsm::adopted(self.mode, identity, found);
    }

    fn arrive(&mut self, pending: Pending, luck: Luck) {
        match pending {
            Pending::Do(action, identity) => {
                if let Some(event) = self.carry_out(action, identity, luck) {
                    self.pending.push(Pending::Tell(event));
                }
            }
            Pending::Tell(event) => {
                match event {
                    Event::Add => self.asked = true,
                    Event::Remove | Event::AddCancelled => self.asked = false,
                    _ => {}
                }
                let action = self.machine.apply(&event);
                if action == Some(FsmAction::RunHandler) {
                    assert!(self.asked || self.mode == Mode::DriverDomain, "nobody asked");
                    self.asked = false;
                }
                if self.machine.phase().settled() || action == Some(FsmAction::RunHandler) {
                    self.record = None;
                }
                match action {
                    None | Some(FsmAction::StopHandler) => {}
                    Some(FsmAction::Forget) => {
                        assert!(self.hold.is_none(), "something is held of a forgotten device");
                        self.machine = DeviceFsm::new(self.mode, self.kind.clone());
                        // Looks are answers to a machine; what remains is news.
                        self.pending
                            .retain(|pending| matches!(pending, Pending::Tell(event) if is_news(event)));
                    }
                    Some(action) => self.pending.push(Pending::Do(action, self.machine.identity().cloned())),
                }
                let in_flight = |pending: &&Pending| match pending {
                    Pending::Do(action, _) => !matches!(action, FsmAction::ReadState(_)),
                    Pending::Tell(event) => !is_news(event) && !matches!(event, Event::StateRead(..)),
                };
                assert!(
                    self.pending.iter().filter(in_flight).count() <= 1,
                    "two operations at once: {self:?}"
                );
            }
        }
    }

    /// Does what the machine asked for, as the daemon would: each write is one transaction that looks once more.
    fn carry_out(&mut self, action: FsmAction, identity: Option<Identity>, luck: Luck) -> Option<Event> {
        let seen = self.observe();
        let own = |holds: bool| if holds { WriteOutcome::Done } else { WriteOutcome::Stale };
        let identity = identity.unwrap_or_else(|| seen.identity.clone());
        let store = !matches!(action, FsmAction::RunHandler | FsmAction::Release);
        let failed = luck == Luck::Ill || luck == Luck::UnknownIll || (luck == Luck::UnknownWell && !store);
        let outcome = match action {
            FsmAction::ReadState(ticket) => return Some(Event::StateRead(ticket, seen)),
            FsmAction::RunHandler => {
                assert!(self.hold.is_none(), "a handler runs while something is held");
                self.handled = self.directory.as_ref().map(|found| found.vm);
                // It may fail with everything done, with half of it, or, without a device, with nothing.
                let Some(vm) = self.handled.filter(|_| seen.is_of(&identity)) else {
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
            FsmAction::Publish => own(seen.connectable(&identity)),
            FsmAction::Withdraw => own(seen.withdrawable(&identity)),
            FsmAction::PublishFailure => own(self.machine.accepts_failure(&seen)),
            FsmAction::PublishDisconnected => own(seen.is_of(&identity)),
            FsmAction::RemoveDirectory => own(seen.is_of(&identity) && seen.leaving()),
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
        let unknown = matches!(luck, Luck::UnknownWell | Luck::UnknownIll);
        Some(Event::Written(if unknown { WriteOutcome::Unknown } else { outcome }))
    }

    fn write(&mut self, action: FsmAction) {
        let directory = self.directory.as_mut().unwrap();
        match action {
            FsmAction::Publish => {
                // Of two virtual machines that cannot be told apart, nobody could tell.
                assert!(
                    !self.vm_readable || self.handled == Some(directory.vm),
                    "another's effects are published"
                );
                directory.status = HotplugStatus::Connected;
                directory.ours = true;
            }
            FsmAction::Withdraw => {
                assert!(self.hold.is_some(), "what is taken back is not held any more");
                directory.status = HotplugStatus::None;
            }
            FsmAction::PublishFailure => {
                let anew = !directory.ours && directory.status == HotplugStatus::None;
                assert!(
                    !(self.machine.lost && anew),
                    "what was lost is told of what was made anew"
                );
                directory.status = HotplugStatus::Error;
            }
            FsmAction::PublishDisconnected => {
                assert!(self.hold.is_none(), "the end is told while something is held");
                directory.status = HotplugStatus::Disconnected;
            }
            FsmAction::RemoveDirectory => {
                assert_eq!(self.mode, Mode::DriverDomain);
                assert!(self.hold.is_none(), "the directory goes while something is held");
                self.directory = None;
            }
            _ => unreachable!("writes nothing"),
        }
    }

    /// Everything on its way arrives, and goes well.
    fn settle(&mut self) {
        for _ in 0..1000 {
            if self.pending.is_empty() {
                return;
            }
            let pending = self.pending.remove(0);
            self.arrive(pending, Luck::Well);
        }
        panic!("it never comes to an end: {self:?}");
    }

    /// Nobody wants anything any more; what is under way goes on to its end, and then there is one last look.
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
        let phase = self.machine.phase();
        assert_eq!(phase.holds(), self.hold.is_some(), "{self:?}");
        let Some(found) = &self.directory else {
            assert_eq!(phase, Phase::Absent, "{self:?}");
            return;
        };
        let seen = self.observe();
        assert!(!self.machine.remove_pending(), "{self:?}");
        if seen.leaving() {
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
                let waits = seen.state == self.kind.handler_state() && seen.online && seen.netdev;
                let wanted = self.machine.add_pending() || self.mode == Mode::DriverDomain;
                assert!(!(waits && wanted), "it waits and nobody comes: {self:?}");
                let told = phase == Phase::Released { published: true } && found.status == HotplugStatus::Disconnected;
                assert!(phase == Phase::Waiting || (told && self.mode == Mode::Dom0), "{self:?}");
            }
            (_, Some(_)) => panic!("something is held of a device that is not connected: {self:?}"),
        }
    }
}

/// Whether an event is from outside, and no answer to the machine.
fn is_news(event: &Event) -> bool {
    matches!(event, Event::Changed | Event::Add | Event::Remove | Event::AddCancelled)
}

fn any_step() -> impl Strategy<Value = Step> {
    let which = any::<Index>;
    let luck = prop_oneof![
        17 => Just(Luck::Well),
        1 => Just(Luck::Ill),
        1 => Just(Luck::UnknownWell),
        1 => Just(Luck::UnknownIll),
    ];
    prop_oneof![
        24 => (which(), luck).prop_map(|(which, luck)| Step::Arrive { which, luck }),
        3 => which().prop_map(Step::ArriveTwice),
        3 => which().prop_map(Step::Lose),
        8 => Just(Step::Change),
        3 => any::<bool>().prop_map(|next| Step::Make { next }),
        2 => Just(Step::Unplug),
        1 => Just(Step::Remove),
        1 => Just(Step::Destroy),
        8 => Just(Step::Serve),
        1 => Just(Step::Close),
        1 => Just(Step::SetBack),
        3 => Just(Step::Link),
        1 => Just(Step::Meddle),
        4 => Just(Step::Ask(Event::Add)),
        1 => Just(Step::Ask(Event::Remove)),
        1 => Just(Step::Ask(Event::AddCancelled)),
        1 => prop::bool::weighted(0.3).prop_map(|lost| Step::Restart { lost }),
    ]
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::VBD, Kind::VIF, Kind::VBD3])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_in_whatever_order_it_ends_in_the_right_place(
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
