//! Undo commands that several devices share: the command of the last holder runs.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use xenplug_system::process::Command;

/// The tags of the resources that hold each undo command. A device may hold the same command by several of them.
#[derive(Debug, Default)]
pub(crate) struct SharedUndo(Mutex<HashMap<Command, HashSet<String>>>);

impl SharedUndo {
    /// Notes that the resource with this tag relies on the effect of the command. A second call changes nothing.
    pub(crate) fn hold(&self, undo: &Command, tag: &str) {
        self.table().entry(undo.clone()).or_default().insert(tag.to_owned());
    }

    /// Takes a hold back. Returns whether the command is to run, as no other resource relies on its effect; also for a
    /// resource without a hold, whose command has failed before.
    pub(crate) fn release(&self, undo: &Command, tag: &str) -> bool {
        let mut table = self.table();
        let Some(holders) = table.get_mut(undo) else {
            return true;
        };
        holders.remove(tag);
        let last = holders.is_empty();
        if last {
            table.remove(undo);
        }
        last
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Command, HashSet<String>>> {
        // Every change is complete before anything can panic, so a poisoned table is still a true one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(minor: &str) -> Command {
        Command {
            helper: "tap-ctl".to_owned(),
            program: "/usr/sbin/tap-ctl".into(),
            arguments: vec!["free".to_owned(), "-m".to_owned(), minor.to_owned()],
        }
    }

    #[test]
    fn shared_undo_runs_with_its_last_holder() {
        let shared = SharedUndo::default();
        assert!(shared.release(&undo("0"), "a"), "nothing holds it");
        for tag in ["a", "b", "a"] {
            shared.hold(&undo("0"), tag);
        }
        shared.hold(&undo("1"), "a");
        assert!(!shared.release(&undo("0"), "a"), "b holds it");
        assert!(!shared.release(&undo("0"), "a"), "and still does");
        assert!(shared.release(&undo("0"), "b"));
        assert!(shared.release(&undo("0"), "b"), "to try it again");
        assert!(shared.release(&undo("1"), "a"));
    }
}
