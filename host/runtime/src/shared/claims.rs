//! Claims on disks: the sharing rules of `/etc/xen/scripts/block`, without its scan over all devices.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use xenplug_system::block::SourceIdentity;
use xenplug_xenbus::DeviceKey;

use super::Changes;

/// The use of a disk by a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Reads, beside other readers.
    Readers,
    /// Writes, beside nobody.
    Alone,
    /// Unchecked (mode `w!`). The others are checked: a device that wants to be alone is refused beside this one, as by
    /// the script.
    Unchecked,
}

/// A device's use of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The device.
    pub device: DeviceKey,
    /// The `vm` nodes of its virtual machine: its own, and that of a stub domain's target.
    pub vms: Vec<String>,
    /// The use.
    pub sharing: Sharing,
}

impl Claim {
    /// Returns whether another device may not use the disk beside this claim.
    pub(crate) fn forbids(&self, other: &Self) -> bool {
        self.device != other.device
            && match other.sharing {
                Sharing::Alone => true,
                Sharing::Readers => self.sharing == Sharing::Alone,
                Sharing::Unchecked => false,
            }
            && !self.is_of_same_vm(other)
    }

    fn is_of_same_vm(&self, other: &Self) -> bool {
        self.device.frontend == other.device.frontend || self.vms.iter().any(|vm| other.vms.contains(vm))
    }
}

/// A claim that was granted.
struct Granted {
    claim: Claim,
    /// True if the device's handler still runs.
    connecting: bool,
}

/// All claims of this daemon's devices, by disk, in the order in which they were granted.
#[derive(Default)]
pub(crate) struct Claims {
    table: Mutex<HashMap<SourceIdentity, Vec<Granted>>>,
    changes: Changes,
}

impl Claims {
    pub(super) fn new(changes: Changes) -> Self {
        Self {
            table: Mutex::default(),
            changes,
        }
    }

    /// Claims a disk. The error is the device that keeps it: a writer must be alone, and a virtual machine may share
    /// with itself.
    pub(crate) fn acquire(&self, disk: SourceIdentity, claim: Claim) -> Result<(), DeviceKey> {
        let mut table = self.table();
        let claims = table.entry(disk).or_default();
        if let Some(other) = claims.iter().find(|other| other.claim.forbids(&claim)) {
            return Err(other.claim.device.clone());
        }
        put(claims, claim, true);
        Ok(())
    }

    /// Takes over a claim that an earlier daemon granted, without a check: the order in which the claims came is lost,
    /// and an unchecked one may have come after one that is alone.
    pub(crate) fn reclaim(&self, disk: SourceIdentity, claim: Claim) {
        put(self.table().entry(disk).or_default(), claim, false);
    }

    /// Returns whether another device of the same virtual machine claimed the disk earlier and is still being
    /// connected. The two may be meant to share what the first one's handler makes of the disk.
    pub(crate) fn is_ahead(&self, disk: SourceIdentity, claim: &Claim) -> bool {
        let table = self.table();
        let claims = table.get(&disk).into_iter().flatten();
        claims
            .take_while(|granted| granted.claim.device != claim.device)
            .any(|granted| granted.connecting && granted.claim.is_of_same_vm(claim))
    }

    /// Notes that the handler of a device that claimed the disk has returned.
    pub(crate) fn handler_returned(&self, disk: SourceIdentity, device: &DeviceKey) {
        let mut table = self.table();
        for granted in table.get_mut(&disk).into_iter().flatten() {
            granted.connecting &= granted.claim.device != *device;
        }
        drop(table);
        self.changes.notify();
    }

    /// Gives a claim up. One that is not there is no error.
    pub(crate) fn release(&self, disk: SourceIdentity, device: &DeviceKey) {
        let mut table = self.table();
        if let Some(claims) = table.get_mut(&disk) {
            claims.retain(|granted| granted.claim.device != *device);
            if claims.is_empty() {
                table.remove(&disk);
            }
        }
        drop(table);
        self.changes.notify();
    }

    fn table(&self) -> MutexGuard<'_, HashMap<SourceIdentity, Vec<Granted>>> {
        // Every change is complete before anything can panic, so a poisoned table is still a true one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a device's claim, in the place of an earlier one.
fn put(claims: &mut Vec<Granted>, claim: Claim, connecting: bool) {
    claims.retain(|granted| granted.claim.device != claim.device);
    claims.push(Granted { claim, connecting });
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: SourceIdentity = SourceIdentity::File { device: 1, inode: 2 };

    fn key(text: &str) -> DeviceKey {
        text.parse().expect("a key")
    }

    fn claim(device: &str, vms: &[String], sharing: Sharing) -> Claim {
        Claim {
            device: key(device),
            vms: vms.to_vec(),
            sharing,
        }
    }

    #[test]
    fn writer_is_alone_readers_share_and_a_vm_shares_with_itself() {
        use Sharing::*;
        let a = vec!["/vm/a".to_owned()];
        let b = vec!["/vm/b".to_owned()];
        let stub_of_a = vec!["/vm/stub".to_owned(), "/vm/a".to_owned()];
        for (first, second, vms, allowed) in [
            (Alone, Alone, &b, false),
            (Alone, Readers, &b, false),
            (Readers, Alone, &b, false),
            (Readers, Readers, &b, true),
            (Alone, Unchecked, &b, true),
            (Unchecked, Alone, &b, false),
            (Unchecked, Readers, &b, true),
            (Alone, Alone, &a, true),
            (Alone, Alone, &stub_of_a, true),
        ] {
            let claims = Claims::default();
            claims
                .acquire(DISK, claim("vbd/1/51712", &a, first))
                .expect("the first is free");
            let wanted = claim("vbd/2/51712", vms, second);
            let result = claims.acquire(DISK, wanted.clone());
            assert_eq!(result.is_ok(), allowed, "{first:?} then {second:?} of {vms:?}");
            if !allowed {
                assert_eq!(result, Err(key("vbd/1/51712")));
                claims.release(DISK, &key("vbd/1/51712"));
                assert_eq!(claims.acquire(DISK, wanted), Ok(()));
            }
        }
    }

    #[test]
    fn second_device_of_a_vm_waits_for_the_first() {
        let (a, b) = (["/vm/a".to_owned()], ["/vm/b".to_owned()]);
        let first = claim("vbd3/1/51712", &a, Sharing::Readers);
        let second = claim("vbd3/2/51712", &a, Sharing::Readers);
        let other = claim("vbd3/3/51712", &b, Sharing::Readers);
        let claims = Claims::default();
        for wanted in [&first, &second, &other] {
            claims.acquire(DISK, wanted.clone()).expect("readers share");
        }
        assert!(!claims.is_ahead(DISK, &first), "it was first");
        assert!(claims.is_ahead(DISK, &second));
        assert!(!claims.is_ahead(DISK, &other), "it is of another virtual machine");
        claims.handler_returned(DISK, &first.device);
        assert!(!claims.is_ahead(DISK, &second));
        claims.reclaim(DISK, first);
        assert!(!claims.is_ahead(DISK, &second), "a reclaimed device is connected");
    }

    #[test]
    fn granted_claims_are_reclaimed_in_any_order() {
        let (a, b) = (["/vm/a".to_owned()], ["/vm/b".to_owned()]);
        let claims = Claims::default();
        // In the order in which they were granted, the one that is alone came first.
        claims.reclaim(DISK, claim("vbd/2/51712", &b, Sharing::Unchecked));
        claims.reclaim(DISK, claim("vbd/1/51712", &a, Sharing::Alone));
        let third = claims.acquire(DISK, claim("vbd/3/51712", &[], Sharing::Readers));
        assert_eq!(third, Err(key("vbd/1/51712")));
    }
}
