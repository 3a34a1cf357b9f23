//! Users of a helper and its end, on the simulated platform.

use xenplug_system::{
    Platform,
    grant::{HelperRule, Operator, ProcessGrant},
    simulated::{Program, SimHost},
};

use super::{super::Claim, *};

struct Fixture {
    platform: Platform,
    helpers: SharedHelpers,
    ended: Arc<Mutex<Vec<HelperKey>>>,
    _sim: Arc<SimHost>,
}

struct Store(Arc<Mutex<Vec<HelperKey>>>);

impl StoreQueries for Store {
    fn foreign_users(&self, _: u32, _: u32) -> Result<Vec<Claim>, String> {
        Ok(Vec::new())
    }

    fn backend_started(&self, _: &DeviceKey) -> Result<bool, String> {
        Ok(true)
    }

    fn may_start_helper(&self, _: &DeviceKey) -> Result<(), String> {
        Ok(())
    }

    fn helper_ended(&self, key: &HelperKey) {
        self.0.lock().expect("nobody panics").push(key.clone());
    }
}

impl Fixture {
    fn new() -> Self {
        let (platform, sim) = Platform::simulated();
        sim.add_program("/usr/bin/qemu", Program::Stays);
        let ended = Arc::<Mutex<Vec<HelperKey>>>::default();
        Self {
            platform,
            helpers: helpers(&ended),
            ended,
            _sim: sim,
        }
    }

    fn process(&self) -> &dyn Process {
        self.platform.process.as_ref()
    }

    fn join(&self, instance: &DeviceInstance) -> Option<Joined> {
        self.helpers.try_join(self.process(), &key(instance), instance)
    }

    /// Joins as the first, and starts it.
    fn start(&self, instance: &DeviceInstance) -> (String, HelperProcess) {
        let Some(Joined::First(tag)) = self.join(instance) else {
            panic!("there is one already");
        };
        let rule = HelperRule {
            name: "qemu".to_owned(),
            path: "/usr/bin/qemu".into(),
            args: Vec::new(),
        };
        let grant = ProcessGrant::new(&Operator::of_configuration(), vec![rule]);
        let running = self.process().start(&grant, "qemu", &[], &tag).expect("it starts");
        self.helpers.started(&tag, &running, instance);
        (tag, running)
    }

    fn leave(&self, tag: &str, running: Option<&HelperProcess>, instance: &DeviceInstance) {
        self.helpers
            .leave(self.process(), tag, running, Some(&key(instance)), instance)
            .expect("it can be ended");
    }
}

fn helpers(ended: &Arc<Mutex<Vec<HelperKey>>>) -> SharedHelpers {
    SharedHelpers::new(Arc::new(Store(Arc::clone(ended))), Changes::default())
}

fn instance(key: &str) -> DeviceInstance {
    DeviceInstance::main(key.parse().expect("a key"))
}

fn key(instance: &DeviceInstance) -> HelperKey {
    HelperKey {
        plugin: "qdisk".to_owned(),
        helper: "qemu".to_owned(),
        kind: instance.device.kind.clone(),
        guest: instance.device.frontend,
    }
}

#[test]
fn disks_of_a_guest_share_a_helper_that_the_last_one_ends() {
    let fixture = Fixture::new();
    let (a, b, other) = (
        instance("qdisk/3/51712"),
        instance("qdisk/3/51728"),
        instance("qdisk/4/51712"),
    );
    assert!(!fixture.helpers.serves(&a.device));
    let (tag, running) = fixture.start(&a);
    assert!(fixture.helpers.serves(&b.device) && !fixture.helpers.serves(&other.device));
    let Some(Joined::Running(same, again)) = fixture.join(&b) else {
        panic!("it runs");
    };
    assert_eq!((&same, &again), (&tag, &running));
    let (another, _) = fixture.start(&other);
    assert_ne!(another, tag, "each guest has its own");

    fixture.leave(&tag, Some(&running), &a);
    fixture.leave(&tag, Some(&running), &a);
    assert!(fixture.process().running(&running), "another disk needs it");
    assert!(fixture.ended.lock().expect("nobody panics").is_empty());
    fixture.leave(&tag, Some(&running), &b);
    assert!(!fixture.process().running(&running) && !fixture.helpers.serves(&a.device));
    assert_eq!(*fixture.ended.lock().expect("nobody panics"), [key(&b)]);
    assert!(
        matches!(fixture.join(&a), Some(Joined::First(_))),
        "the next one starts another"
    );
}

#[test]
fn helper_that_starts_or_has_ended_is_not_joined() {
    let fixture = Fixture::new();
    let (a, b) = (instance("qdisk/3/51712"), instance("qdisk/3/51728"));
    let Some(Joined::First(tag)) = fixture.join(&a) else {
        panic!("there is none");
    };
    assert!(fixture.join(&b).is_none());
    // It could not be started.
    fixture.leave(&tag, None, &a);

    let (tag, running) = fixture.start(&b);
    fixture.process().end(&running, Duration::ZERO).expect("it is killed");
    assert!(fixture.join(&a).is_none(), "it has ended, which nobody has noticed yet");
    assert_eq!(fixture.helpers.loss(&tag), None);
    assert_eq!(fixture.helpers.poll(fixture.process()), std::slice::from_ref(&b));
    assert_eq!(fixture.helpers.poll(fixture.process()), [], "it is reported once");
    assert_eq!(fixture.helpers.loss(&tag), Some("qemu has ended by itself".to_owned()));
    assert!(fixture.join(&a).is_none(), "its user has not left it");
    fixture.leave(&tag, Some(&running), &b);
    assert!(matches!(fixture.join(&a), Some(Joined::First(_))));
}

#[test]
fn helper_left_by_a_crash_ends_only_without_users() {
    let fixture = Fixture::new();
    let (a, b, other) = (
        instance("qdisk/3/51712"),
        instance("qdisk/3/51728"),
        instance("qdisk/3/51744"),
    );
    let (tag, running) = fixture.start(&a);

    // The next daemon finds `a` whole, and of `b` that it was about to join.
    let next = Fixture {
        helpers: helpers(&fixture.ended),
        platform: fixture.platform.clone(),
        ended: Arc::clone(&fixture.ended),
        _sim: Arc::clone(&fixture._sim),
    };
    next.helpers.resume(&tag, None, Some(key(&b)), &b);
    assert!(next.join(&other).is_none(), "it is not known yet whether it runs");
    next.helpers.resume(&tag, Some(&running), Some(key(&a)), &a);
    next.leave(&tag, None, &b);
    assert!(next.process().running(&running), "the first disk is in use");
    assert!(matches!(next.join(&b), Some(Joined::Running(same, _)) if same == tag));

    // The one after finds both half done: it knows the tag alone.
    let last = Fixture {
        helpers: helpers(&fixture.ended),
        ..next
    };
    for instance in [&a, &b] {
        last.helpers.resume(&tag, None, Some(key(instance)), instance);
    }
    last.leave(&tag, None, &a);
    assert!(
        last.process().running(&running),
        "the other record has not been given back"
    );
    assert!(last.join(&other).is_none(), "no second one beside it");
    last.leave(&tag, None, &b);
    assert!(!last.process().running(&running));
    assert!(matches!(last.join(&other), Some(Joined::First(_))));
}
