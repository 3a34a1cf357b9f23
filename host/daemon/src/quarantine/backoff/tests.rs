//! Plugins that fail, recover, and fail for some and not for others.

use super::*;

/// A plugin, and a clock of whole seconds.
struct Stage {
    conduct: FailureHistory,
    rules: Rules,
    zero: Instant,
    now: u64,
}

impl Stage {
    fn new() -> Self {
        Self {
            conduct: FailureHistory::default(),
            rules: Rules::default(),
            zero: Instant::now(),
            now: 100,
        }
    }

    fn at(&self, second: u64) -> Instant {
        self.zero + Duration::from_secs(second)
    }

    /// A handler that began now fails now. For whom the plugin is quarantined by that.
    fn fails(&mut self, guest: &str) -> Vec<Option<String>> {
        self.fails_that_began(guest, self.now, false)
    }

    fn fails_that_began(&mut self, guest: &str, began: u64, serves_others: bool) -> Vec<Option<String>> {
        let told = Told {
            guest,
            began: self.at(began),
            now: self.at(self.now),
            serves_others,
            cause: "crashed",
        };
        let begun = self.conduct.failed(&self.rules, told);
        begun.into_iter().map(|quarantine| quarantine.guest).collect()
    }

    /// In how many seconds a guest's handler may run, and whether it is quarantined until then.
    fn wait(&self, guest: &str) -> (u64, bool) {
        let now = self.at(self.now);
        match self.conduct.permission(guest, now) {
            Permission::Now => (0, false),
            Permission::At(then) => ((then - now).as_secs(), false),
            Permission::No(quarantine) => ((quarantine.until - now).as_secs(), true),
        }
    }

    /// Goes on to when a guest's handler may run.
    fn waits(&mut self, guest: &str) {
        self.now += self.wait(guest).0;
    }
}

#[test]
fn pauses_grow_until_the_guest_is_cut_off_and_trials_in_vain_make_that_longer() {
    let mut stage = Stage::new();
    for pause in [1, 2, 4, 8] {
        assert_eq!(stage.fails("a"), []);
        assert_eq!(stage.wait("a"), (pause, false));
        stage.waits("a");
    }
    for minutes in [10, 20, 40] {
        assert_eq!(stage.fails("a"), [Some("a".to_owned())]);
        assert_eq!(stage.wait("a"), (60 * minutes, true));
        assert_eq!(stage.wait("b"), (0, false), "another guest");
        stage.waits("a");
        assert_eq!(stage.wait("a"), (0, false));
    }
    for _ in 0..100 {
        stage.fails("a");
        assert!(stage.wait("a").0 <= 24 * 60 * 60);
        stage.waits("a");
    }
}

#[test]
fn a_success_ends_it() {
    let mut stage = Stage::new();
    for _ in 0..5 {
        stage.fails("a");
        stage.waits("a");
    }
    stage.conduct.succeeded("a");
    assert_eq!((stage.conduct.faults(), stage.wait("a")), (0, (0, false)));
    assert_eq!(stage.fails("a"), []);
    assert_eq!(stage.wait("a"), (1, false));
}

#[test]
fn one_guest_alone_does_not_cut_off_the_others() {
    let mut stage = Stage::new();
    for _ in 0..20 {
        assert!(!stage.fails("a").contains(&None));
        assert!(!stage.fails("b").contains(&None));
        stage.now += 100_000;
    }
    assert_eq!(stage.wait("c"), (0, false));
}

#[test]
fn several_guests_with_nothing_that_speaks_for_the_plugin_cut_off_all() {
    let mut stage = Stage::new();
    for guest in ["a", "b", "c", "a"] {
        assert_eq!(stage.fails(guest), []);
        stage.now += 20;
    }
    assert_eq!(stage.fails("d"), [None]);
    assert_eq!(stage.wait("e"), (600, true), "one that never failed");
    let now = stage.at(stage.now);
    assert_eq!(stage.conduct.quarantines(now).count(), 1);
    stage.waits("e");
    assert_eq!(stage.fails("e"), [None]);
    assert_eq!(stage.wait("e"), (1200, true));
    stage.waits("e");
    stage.conduct.succeeded("e");
    assert_eq!(stage.wait("f"), (0, false));
}

#[test]
fn a_plugin_that_serves_somebody_is_not_cut_off_for_all() {
    let mut stage = Stage::new();
    for guest in ["a", "b", "c", "d", "e", "f", "g"] {
        assert_eq!(stage.fails_that_began(guest, stage.now, true), [], "it serves another");
        stage.now += 1;
    }
    stage.conduct.succeeded("x");
    for guest in ["a", "b", "c", "d"] {
        assert_eq!(stage.fails(guest), [], "it has just served another");
        stage.now += 1;
    }
}

#[test]
fn a_storm_is_one_fault() {
    let mut stage = Stage::new();
    let began = stage.now;
    stage.now += 1;
    for _ in 0..40 {
        for guest in ["a", "b", "c", "d"] {
            assert_eq!(stage.fails_that_began(guest, began, false), []);
        }
    }
    assert_eq!((stage.conduct.faults(), stage.wait("a")), (1, (1, false)));
}

#[test]
fn a_flood_of_guests_is_forgotten_and_not_kept() {
    let mut stage = Stage::new();
    stage.rules.guests = u32::MAX;
    for guest in 0..3 * FailureHistory::GUESTS {
        stage.fails(&guest.to_string());
        stage.now += 1;
    }
    assert_eq!(stage.conduct.guests.len(), FailureHistory::GUESTS);
    assert!(
        stage
            .conduct
            .guests
            .contains_key(&(3 * FailureHistory::GUESTS - 1).to_string())
    );
}
