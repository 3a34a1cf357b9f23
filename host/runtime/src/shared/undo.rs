//! Undo commands that several devices share: the command of the last holder runs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use xenplug_system::process::Command;
use xenplug_xenbus::DeviceInstance;

/// The holders of each undo command, with how often each holds it.
#[derive(Debug, Default)]
pub(crate) struct SharedUndo(Mutex<HashMap<Command, BTreeMap<DeviceInstance, usize>>>);

impl SharedUndo {
    /// Counts a device as one that relies on what `undo` will undo.
    pub(crate) fn hold(&self, undo: &Command, holder: &DeviceInstance) {
        let mut table = self.table();
        let holders = table.entry(undo.clone()).or_default();
        *holders.entry(holder.clone()).or_default() += 1;
    }

    /// Takes one hold of a device back. Returns whether the command is to run, as nobody else relies on it; also for a
    /// device without a hold, whose command has failed before.
    pub(crate) fn release(&self, undo: &Command, holder: &DeviceInstance) -> bool {
        let mut table = self.table();
        let Some(holders) = table.get_mut(undo) else {
            return true;
        };
        if let Some(holds) = holders.get_mut(holder) {
            *holds -= 1;
            if *holds == 0 {
                holders.remove(holder);
            }
        }
        let last = holders.is_empty();
        if last {
            table.remove(undo);
        }
        last
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Command, BTreeMap<DeviceInstance, usize>>> {
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

    fn instance(key: &str) -> DeviceInstance {
        DeviceInstance::main(key.parse().expect("a key"))
    }

    #[test]
    fn shared_undo_runs_with_its_last_holder() {
        let [a, b] = ["vbd3/1/51712", "vbd3/2/51712"].map(instance);
        let shared = SharedUndo::default();
        assert!(shared.release(&undo("0"), &a), "nobody holds it");
        for device in [&a, &b, &a] {
            shared.hold(&undo("0"), device);
        }
        shared.hold(&undo("1"), &a);
        assert!(!shared.release(&undo("0"), &a), "b holds it");
        assert!(!shared.release(&undo("0"), &a), "and still does");
        assert!(shared.release(&undo("0"), &b));
        assert!(shared.release(&undo("0"), &b), "to try it again");
        assert!(shared.release(&undo("1"), &a));
    }

    #[test]
    fn undo_that_one_device_holds_twice_runs_once() {
        let a = instance("vbd3/1/51712");
        let shared = SharedUndo::default();
        shared.hold(&undo("0"), &a);
        shared.hold(&undo("0"), &a);
        assert!(!shared.release(&undo("0"), &a), "it holds the first still");
        assert!(shared.release(&undo("0"), &a));
    }
}
