//! How a plugin has behaved, and whether its handler may run: a pure function of what is told, and when.
//!
//! After each fault of its own the plugin is left alone for a while, each time for longer; after some in a row it is
//! quarantined: what it is asked for fails at once, until that time is over and it is tried again. A success ends all that.
//!
//! # Whose faults count
//! What a device calls for comes from a guest's owner, who may know what the plugin stumbles over. So faults are counted
//! for each guest by itself, and a guest's keep the plugin from that guest alone. For all it is quarantined only if
//! nothing speaks for it: the faults in a row are of several guests, there was no success between them, and it serves
//! nobody else. Handlers that began before a fault was known tell nothing new when they fail as well: a storm of devices
//! at once is one fault.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::retry::grown;

/// When a plugin is quarantined, and for how long: the configuration's `[quarantine]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Faults in a row until then. Default 5.
    pub(crate) faults: u32,
    /// Guests that these have to be of, for a quarantine that is for all. Default 3.
    pub(crate) guests: u32,
    /// How long the plugin is left alone after the first fault; then twice as long each time. Default 1 s.
    pub(crate) pause: Duration,
    /// How long the first quarantine lasts; twice as long each time that the plugin is tried in vain. Default 10 min.
    pub(crate) time: Duration,
}

impl Rules {
    /// The longest pause: libxl gives a script 40 s, of which the handler may want some.
    pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(10);
    /// The longest quarantine.
    pub(crate) const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            faults: 5,
            guests: 3,
            pause: Duration::from_secs(1),
            time: Duration::from_secs(600),
        }
    }
}

/// Whether a handler may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission<'a> {
    Now,
    /// It may then.
    At(Instant),
    /// It may not.
    No(&'a Quarantine),
}

/// That a plugin is quarantined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quarantine {
    /// For whom: one guest, or all.
    pub(crate) guest: Option<String>,
    pub(crate) until: Instant,
    /// The faults in a row that it is for.
    pub(crate) faults: u32,
    /// The last of them, in words.
    pub(crate) cause: String,
}

/// A fault, as it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    /// The guest whose device it was for.
    pub(crate) guest: &'a str,
    /// When the handler began.
    pub(crate) began: Instant,
    pub(crate) now: Instant,
    /// Whether the plugin serves another guest.
    pub(crate) serves_others: bool,
    /// What happened.
    pub(crate) cause: &'a str,
}

/// How a plugin has behaved.
#[derive(Debug, Default)]
pub(crate) struct FailureHistory {
    /// By guest.
    guests: BTreeMap<String, Streak>,
    /// Of all guests together.
    all: Streak,
    /// Some of those whose faults that are: as many as there have to be.
    whose: Vec<String>,
}

/// Faults in a row.
#[derive(Debug, Default)]
struct Streak {
    faults: u32,
    last: Option<Instant>,
    pause: Option<Instant>,
    quarantine: Option<Quarantine>,
    /// How many there were.
    quarantines: u32,
}

impl FailureHistory {
    /// Guests whose faults are kept; of more, the ones that were the longest without are forgotten.
    const GUESTS: usize = 1024;

    /// Whether its handler may run for a guest.
    pub(crate) fn permission(&self, guest: &str, now: Instant) -> Permission<'_> {
        let streaks = [Some(&self.all), self.guests.get(guest)];
        let quarantines = streaks.iter().flatten().filter_map(|streak| streak.quarantine.as_ref());
        if let Some(quarantine) = quarantines.into_iter().find(|quarantine| quarantine.until > now) {
            return Permission::No(quarantine);
        }
        let pause = self.guests.get(guest).and_then(|streak| streak.pause);
        pause
            .filter(|pause| *pause > now)
            .map_or(Permission::Now, Permission::At)
    }

    /// Takes in a fault. The quarantines that begin with it come back.
    pub(crate) fn failed(&mut self, rules: &Rules, told: Told<'_>) -> Vec<Quarantine> {
        self.make_room(told.guest);
        let mut begun = Vec::new();
        let streak = self.guests.entry(told.guest.to_owned()).or_default();
        if streak.add(&told) {
            if streak.faults < rules.faults {
                let pause = grown(rules.pause, streak.faults - 1, Rules::PAUSE_MAX);
                streak.pause = Some(told.now + pause);
            } else {
                begun.push(streak.quarantine(rules, Some(told.guest), &told));
            }
        }
        if !self.whose.iter().any(|guest| guest == told.guest) && self.whose.len() < rules.guests as usize {
            self.whose.push(told.guest.to_owned());
        }
        let several = self.whose.len() >= rules.guests as usize;
        if self.all.add(&told) && several && self.all.faults >= rules.faults && !told.serves_others {
            begun.push(self.all.quarantine(rules, None, &told));
        }
        begun
    }

    /// Takes in a success.
    pub(crate) fn succeeded(&mut self, guest: &str) {
        self.guests.remove(guest);
        self.all = Streak::default();
        self.whose.clear();
    }

    /// The quarantines that stand.
    pub(crate) fn quarantines(&self, now: Instant) -> impl Iterator<Item = &Quarantine> {
        let streaks = std::iter::once(&self.all).chain(self.guests.values());
        let quarantines = streaks.filter_map(|streak| streak.quarantine.as_ref());
        quarantines.filter(move |quarantine| quarantine.until > now)
    }

    /// The most faults in a row that it has with a guest.
    pub(crate) fn faults(&self) -> u32 {
        self.guests.values().map(|streak| streak.faults).max().unwrap_or(0)
    }

    fn make_room(&mut self, guest: &str) {
        if self.guests.len() >= Self::GUESTS && !self.guests.contains_key(guest) {
            let oldest = self.guests.iter().min_by_key(|(_, streak)| streak.last);
            if let Some(oldest) = oldest.map(|(guest, _)| guest.clone()) {
                self.guests.remove(&oldest);
            }
        }
    }
}

impl Streak {
    /// Counts a fault, unless its handler began before the last one was known.
    fn add(&mut self, told: &Told<'_>) -> bool {
        if self.last.is_some_and(|last| told.began < last) {
            return false;
        }
        self.faults = self.faults.saturating_add(1);
        self.last = Some(told.now);
        true
    }

    /// Begins a quarantine.
    fn quarantine(&mut self, rules: &Rules, guest: Option<&str>, told: &Told<'_>) -> Quarantine {
        let vain = self.quarantines;
        self.quarantines = vain.saturating_add(1);
        let quarantine = Quarantine {
            guest: guest.map(str::to_owned),
            until: told.now + grown(rules.time, vain, Rules::TIME_MAX),
            faults: self.faults,
            cause: told.cause.to_owned(),
        };
        self.quarantine.insert(quarantine).clone()
    }
}

#[cfg(test)]
mod tests;
