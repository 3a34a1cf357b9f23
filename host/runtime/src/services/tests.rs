//! Who takes part in a helper, and when it ends: on the simulated machine.

use std::sync::Arc;

use xenplug_system::{
    Platform,
    grant::{HelperRule, Operator, ProcessGrant},
    simulated::{Program, SimHost},
};

use super::*;

struct Stage {
    system: Platform,
    services: Services,
    ended: Arc<Mutex<Vec<HelperKey>>>,
    _machine: Arc<SimHost>,
}

struct Store(Arc<Mutex<Vec<HelperKey>>>);

impl Backends for Store {
    fn taken_up(&self, _: &DeviceKey) -> Result<bool, String> {
        Ok(true)
    }

    fn startable(&self, _: &DeviceKey) -> Result<(), String> {
        Ok(())
    }

    fn ended(&self, role: &HelperKey) {
        self.0.lock().expect("nobody panics").push(role.clone());
    }
}

impl Stage {
    fn new() -> Self {
        let (system, machine) = Platform::simulated();
        machine.add_program("/usr/bin/qemu", Program::Stays);
        let ended = Arc::<Mutex<Vec<HelperKey>>>::default();
        Self {
            system,
            services: Services::told_by(Box::new(Store(Arc::clone(&ended)))),
            ended,
            _machine: machine,
        }
    }

    fn process(&self) -> &dyn Process {
        self.system.process.as_ref()
    }

    fn join(&self, part: &DeviceInstance) -> Joined {
        self.services.join(self.process(), &role(part), part)
    }

    /// Joins as the first, and starts it.
    fn start(&self, part: &DeviceInstance) -> (String, HelperProcess) {
        let Joined::First(tag) = self.join(part) else {
            panic!("there is one already");
        };
        let rule = HelperRule {
            name: "qemu".to_owned(),
            path: "/usr/bin/qemu".into(),
            args: Vec::new(),
        };
        let grant = ProcessGrant::new(&Operator::of_configuration(), vec![rule]);
        let kept = self.process().start(&grant, "qemu", &[], &tag).expect("it starts");
        self.services.runs(&tag, &kept, part);
        (tag, kept)
    }

    fn leave(&self, tag: &str, kept: Option<&HelperProcess>, part: &DeviceInstance) {
        self.services
            .leave(self.process(), tag, kept, Some(&role(part)), part)
            .expect("it can be ended");
    }
}

fn part(key: &str) -> DeviceInstance {
    DeviceInstance::main(key.parse().expect("a key"))
}

fn role(part: &DeviceInstance) -> HelperKey {
    HelperKey {
        plugin: "qdisk".to_owned(),
        helper: "qemu".to_owned(),
        kind: part.device.kind.clone(),
        guest: part.device.frontend,
    }
}

#[test]
fn the_disks_of_a_guest_have_one_helper_and_the_last_one_ends_it() {
    let stage = Stage::new();
    let (a, b, other) = (part("qdisk/3/51712"), part("qdisk/3/51728"), part("qdisk/4/51712"));
    assert!(!stage.services.serve(&a.device));
    let (tag, kept) = stage.start(&a);
    assert!(stage.services.serve(&b.device) && !stage.services.serve(&other.device));
    let Joined::Running(same, again) = stage.join(&b) else {
        panic!("it runs");
    };
    assert_eq!((&same, &again), (&tag, &kept));
    let (another, _) = stage.start(&other);
    assert_ne!(another, tag, "each guest has its own");

    stage.leave(&tag, Some(&kept), &a);
    stage.leave(&tag, Some(&kept), &a);
    assert!(stage.process().running(&kept), "another disk needs it");
    assert!(stage.ended.lock().expect("nobody panics").is_empty());
    stage.leave(&tag, Some(&kept), &b);
    assert!(!stage.process().running(&kept) && !stage.services.serve(&a.device));
    assert_eq!(*stage.ended.lock().expect("nobody panics"), [role(&b)]);
    assert!(
        matches!(stage.join(&a), Joined::First(_)),
        "the next one starts another"
    );
}

#[test]
fn nobody_joins_one_that_is_being_started_or_has_ended() {
    let stage = Stage::new();
    let (a, b) = (part("qdisk/3/51712"), part("qdisk/3/51728"));
    let Joined::First(tag) = stage.join(&a) else {
        panic!("there is none");
    };
    assert!(matches!(stage.join(&b), Joined::Later));
    // It could not be started.
    stage.leave(&tag, None, &a);

    let (tag, kept) = stage.start(&b);
    stage.process().end(&kept, Duration::ZERO).expect("it is killed");
    assert!(
        matches!(stage.join(&a), Joined::Later),
        "it has ended, which nobody has noticed yet"
    );
    assert_eq!(stage.services.lost(&tag), None);
    assert_eq!(stage.services.tend(stage.process()), std::slice::from_ref(&b));
    assert_eq!(stage.services.tend(stage.process()), [], "it is told once");
    assert_eq!(stage.services.lost(&tag), Some("qemu has ended by itself".to_owned()));
    assert!(
        matches!(stage.join(&a), Joined::Later),
        "whom it served has not left it"
    );
    stage.leave(&tag, Some(&kept), &b);
    assert!(matches!(stage.join(&a), Joined::First(_)));
}

#[test]
fn what_a_crash_left_is_ended_only_if_nobody_is_served() {
    let stage = Stage::new();
    let (a, b, other) = (part("qdisk/3/51712"), part("qdisk/3/51728"), part("qdisk/3/51744"));
    let (tag, kept) = stage.start(&a);

    // The next daemon finds `a` whole, and of `b` that it was about to join.
    let next = Stage {
        services: Services::told_by(Box::new(Store(Arc::clone(&stage.ended)))),
        system: stage.system.clone(),
        ended: Arc::clone(&stage.ended),
        _machine: Arc::clone(&stage._machine),
    };
    next.services.resume(&tag, None, Some(role(&b)), &b);
    assert!(
        matches!(next.join(&other), Joined::Later),
        "it is not known yet whether it runs"
    );
    next.services.resume(&tag, Some(&kept), Some(role(&a)), &a);
    next.leave(&tag, None, &b);
    assert!(next.process().running(&kept), "the first disk is in use");
    assert!(matches!(next.join(&b), Joined::Running(same, _) if same == tag));

    // The one after finds both half done: it knows the tag alone.
    let last = Stage {
        services: Services::told_by(Box::new(Store(Arc::clone(&stage.ended)))),
        ..next
    };
    for part in [&a, &b] {
        last.services.resume(&tag, None, Some(role(part)), part);
    }
    last.leave(&tag, None, &a);
    assert!(
        last.process().running(&kept),
        "the other record has not been given back"
    );
    assert!(matches!(last.join(&other), Joined::Later), "no second one beside it");
    last.leave(&tag, None, &b);
    assert!(!last.process().running(&kept));
    assert!(matches!(last.join(&other), Joined::First(_)));
}
