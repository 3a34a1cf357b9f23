//! What helpers did once for several devices, such as starting a tapdisk: who shares it, and who is the last to go.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use xenplug_xenbus::Part;

/// All that was done once, by its name.
#[derive(Default)]
pub(crate) struct Deeds {
    table: Mutex<HashMap<String, Deed>>,
}

struct Deed {
    users: Vec<Part>,
    stage: Stage,
}

enum Stage {
    /// Its first device is at it.
    Doing,
    Done(Answer),
    /// Nobody is left, and it is being undone.
    Undoing,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The tag of what it left running.
    pub(crate) tag: String,
    /// What the helper wrote to standard output.
    pub(crate) stdout: String,
}

/// How a device comes to share something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    /// It was done.
    Done(Answer),
    /// It has to be done, by whom this is told.
    First,
    /// Not now: it is being done or undone.
    Later,
}

impl Deeds {
    /// A device shares what has that name.
    pub(crate) fn join(&self, name: &str, part: &Part) -> Shared {
        let mut table = self.table();
        let Some(deed) = table.get_mut(name) else {
            let deed = Deed {
                users: vec![part.clone()],
                stage: Stage::Doing,
            };
            table.insert(name.to_owned(), deed);
            return Shared::First;
        };
        let Stage::Done(answer) = &deed.stage else {
            return Shared::Later;
        };
        if !deed.users.contains(part) {
            deed.users.push(part.clone());
        }
        Shared::Done(answer.clone())
    }

    /// It is done.
    pub(crate) fn done(&self, name: &str, answer: Answer) {
        if let Some(deed) = self.table().get_mut(name) {
            deed.stage = Stage::Done(answer);
        }
    }

    /// Takes up, after a restart, that a device shares it.
    pub(crate) fn adopt(&self, name: &str, answer: &Answer, part: &Part) {
        let mut table = self.table();
        let deed = table.entry(name.to_owned()).or_insert_with(|| Deed {
            users: Vec::new(),
            stage: Stage::Done(answer.clone()),
        });
        deed.users.push(part.clone());
    }

    /// A device needs it no more. Whether it was the last one: it has to undo it, and to tell [`Deeds::undone`].
    pub(crate) fn leave(&self, name: &str, part: &Part) -> bool {
        let mut table = self.table();
        let Some(deed) = table.get_mut(name) else {
            return true;
        };
        deed.users.retain(|user| user != part);
        if deed.users.is_empty() {
            deed.stage = Stage::Undoing;
        }
        deed.users.is_empty()
    }

    /// It is undone.
    pub(crate) fn undone(&self, name: &str) {
        self.table().remove(name);
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Deed>> {
        // Every change is complete before anything can panic, so a poisoned table is still a true one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(key: &str) -> Part {
        Part::main(key.parse().expect("a key"))
    }

    #[test]
    fn the_first_does_it_the_others_share_it_and_the_last_undoes_it() {
        let deeds = Deeds::default();
        let (a, b) = (part("vbd3/3/51712"), part("vbd3/4/51712"));
        let answer = Answer {
            tag: "tag".to_owned(),
            stdout: "7".to_owned(),
        };
        assert_eq!(deeds.join("spawn", &a), Shared::First);
        assert_eq!(deeds.join("spawn", &b), Shared::Later);
        deeds.done("spawn", answer.clone());
        assert_eq!(deeds.join("spawn", &b), Shared::Done(answer.clone()));
        assert_eq!(deeds.join("open", &b), Shared::First);

        // The next daemon finds both.
        let next = Deeds::default();
        next.adopt("spawn", &answer, &a);
        next.adopt("spawn", &answer, &b);
        for deeds in [deeds, next] {
            assert!(!deeds.leave("spawn", &a), "another shares it");
            assert!(!deeds.leave("spawn", &a));
            assert!(deeds.leave("spawn", &b));
            assert_eq!(deeds.join("spawn", &a), Shared::Later, "it is being undone");
            deeds.undone("spawn");
            assert_eq!(deeds.join("spawn", &a), Shared::First);
        }
        assert!(Deeds::default().leave("nobody's", &a));
    }
}
