//! Undoings that several devices count on: what one of them had a helper do, and others use as well, is undone with the
//! last of them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use xenplug_system::process::Command;
use xenplug_xenbus::DeviceKey;

/// Which devices hold the same undoing.
#[derive(Debug, Default)]
pub(crate) struct Undoings(Mutex<HashMap<Command, HashSet<DeviceKey>>>);

impl Undoings {
    /// A device counts on what this undoes.
    pub(crate) fn hold(&self, undoing: &Command, device: &DeviceKey) {
        self.table().entry(undoing.clone()).or_default().insert(device.clone());
    }

    /// A device no longer does. Answers whether it is to be undone: nobody else counts on it. One that did not, or whose
    /// undoing has failed before, may ask again.
    pub(crate) fn give_up(&self, undoing: &Command, device: &DeviceKey) -> bool {
        let mut table = self.table();
        let Some(devices) = table.get_mut(undoing) else {
            return true;
        };
        devices.remove(device);
        let last = devices.is_empty();
        if last {
            table.remove(undoing);
        }
        last
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Command, HashSet<DeviceKey>>> {
        // Every change is complete before anything can panic, so a poisoned table is still a true one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_devices_hold_is_undone_with_the_second() {
        let undoing = |minor: &str| Command {
            helper: "tap-ctl".to_owned(),
            program: "/usr/sbin/tap-ctl".into(),
            arguments: vec!["free".to_owned(), "-m".to_owned(), minor.to_owned()],
        };
        let [a, b] = ["vbd3/1/51712", "vbd3/2/51712"].map(|key| key.parse().expect("a key"));
        let undoings = Undoings::default();
        assert!(undoings.give_up(&undoing("0"), &a), "nobody holds it");
        for device in [&a, &b, &a] {
            undoings.hold(&undoing("0"), device);
        }
        undoings.hold(&undoing("1"), &a);
        assert!(!undoings.give_up(&undoing("0"), &a), "b holds it");
        assert!(!undoings.give_up(&undoing("0"), &a), "and still does");
        assert!(undoings.give_up(&undoing("0"), &b));
        assert!(undoings.give_up(&undoing("0"), &b), "to try it again");
        assert!(undoings.give_up(&undoing("1"), &a));
    }
}
