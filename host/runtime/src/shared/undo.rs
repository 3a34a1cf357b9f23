//! Undo commands that several devices share: the command of the last holder runs.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use xenplug_system::process::Command;
use xenplug_xenbus::DeviceInstance;

/// The resources that hold each undo command, by their tags. A device may hold the same command by several of them.
#[derive(Debug, Default)]
pub(crate) struct SharedUndo(Mutex<HashMap<Command, HashMap<String, Hold>>>);

#[derive(Debug)]
struct Hold {
    device: DeviceInstance,
    /// The command has run for another resource of the device.
    undone: bool,
}

impl SharedUndo {
    /// Notes that a device's resource with this tag relies on the effect of the command. A second call changes nothing.
    pub(crate) fn hold(&self, undo: &Command, device: &DeviceInstance, tag: &str) {
        let mut table = self.table();
        let holds = table.entry(undo.clone()).or_default();
        holds.entry(tag.to_owned()).or_insert_with(|| Hold {
            device: device.clone(),
            undone: false,
        });
    }

    /// Takes a hold back. Returns whether the command is to run: no other device relies on its effect, and it has not run
    /// for this one. It is also to run for a resource without a hold, whose command has failed before.
    pub(crate) fn release(&self, undo: &Command, device: &DeviceInstance, tag: &str) -> bool {
        let mut table = self.table();
        let Some(holds) = table.get_mut(undo) else {
            return true;
        };
        let undone = holds.remove(tag).is_some_and(|hold| hold.undone);
        let shared = holds.values().any(|hold| !hold.undone && hold.device != *device);
        if holds.is_empty() {
            table.remove(undo);
        }
        !undone && !shared
    }

    /// Notes that the command has run for a device, so that it does not run again for the device's other resources.
    pub(crate) fn undone(&self, undo: &Command, device: &DeviceInstance) {
        let mut table = self.table();
        let holds = table.get_mut(undo).into_iter().flat_map(HashMap::values_mut);
        holds
            .filter(|hold| hold.device == *device)
            .for_each(|hold| hold.undone = true);
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Command, HashMap<String, Hold>>> {
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
    fn shared_undo_runs_with_its_last_device() {
        let [a, b] = ["vbd3/1/51712", "vbd3/2/51712"].map(instance);
        let shared = SharedUndo::default();
        assert!(shared.release(&undo("0"), &a, "a.1"), "nothing holds it");
        for (device, tag) in [(&a, "a.1"), (&b, "b.1"), (&a, "a.1")] {
            shared.hold(&undo("0"), device, tag);
        }
        shared.hold(&undo("1"), &a, "a.2");
        assert!(!shared.release(&undo("0"), &a, "a.1"), "b holds it");
        assert!(!shared.release(&undo("0"), &a, "a.1"), "and still does");
        assert!(shared.release(&undo("0"), &b, "b.1"));
        assert!(shared.release(&undo("0"), &b, "b.1"), "to try it again");
        assert!(shared.release(&undo("1"), &a, "a.2"));
    }

    #[test]
    fn undo_held_twice_by_a_device_runs_first_for_the_newest() {
        let [a, b] = ["vbd3/1/51712", "vbd3/2/51712"].map(instance);
        let shared = SharedUndo::default();
        let release_newest = || {
            shared.hold(&undo("0"), &a, "a.1");
            shared.hold(&undo("0"), &a, "a.2");
            assert!(shared.release(&undo("0"), &a, "a.2"));
        };
        release_newest();
        assert!(shared.release(&undo("0"), &a, "a.1"), "the command has failed");

        release_newest();
        shared.undone(&undo("0"), &a);
        assert!(!shared.release(&undo("0"), &a, "a.1"), "the command has run");

        release_newest();
        shared.undone(&undo("0"), &a);
        shared.hold(&undo("0"), &b, "b.1");
        assert!(shared.release(&undo("0"), &b, "b.1"), "a relies on it no more");
        assert!(!shared.release(&undo("0"), &a, "a.1"));
    }
}
