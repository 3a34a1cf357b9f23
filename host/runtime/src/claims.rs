//! Who uses which disk: the sharing rules of `/etc/xen/scripts/block`, without its scan over all devices.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use xenplug_system::block::SourceIdentity;
use xenplug_xenbus::DeviceKey;

use crate::{Services, shared_undo::Undoings};

/// How a device uses a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    /// Reads, beside other readers.
    Readers,
    /// Writes, beside nobody.
    Alone,
    /// Does not care (`w!`). Others do: who wants to be alone is refused beside it, as the script does.
    Unchecked,
}

/// A device that uses a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The device.
    pub device: DeviceKey,
    /// The `vm` nodes of its virtual machine.
    pub vms: Vec<String>,
    /// How it uses it.
    pub sharing: Sharing,
}

impl Claim {
    /// Whether it keeps a device from using the source in that way.
    fn forbids(&self, device: &DeviceKey, vms: &[String], sharing: Sharing) -> bool {
        self.device != *device
            && (sharing == Sharing::Alone || sharing == Sharing::Readers && self.sharing == Sharing::Alone)
            && !self.is_of(device, vms)
    }

    /// Whether its device is of the same virtual machine as another.
    fn is_of(&self, device: &DeviceKey, vms: &[String]) -> bool {
        self.device.frontend == device.frontend || self.vms.iter().any(|vm| vms.contains(vm))
    }
}

/// A claim that was granted.
struct Granted {
    claim: Claim,
    /// Whether the device's handler is still at work.
    connecting: bool,
}

/// Tells what those use who make no claims: the devices that original hotplug scripts have plugged.
pub trait ForeignDisks: Send + Sync {
    /// The devices that use a block device, as far as everything is known that was published before this call.
    fn users(&self, major: u32, minor: u32) -> Result<Vec<Claim>, String>;
}

/// What the devices of this daemon use together: all claims, by what is claimed, and what helpers do for several.
#[derive(Default)]
pub struct Claims {
    /// In the order in which they were granted.
    table: Mutex<HashMap<SourceIdentity, Vec<Granted>>>,
    foreign_disks: Option<Box<dyn ForeignDisks>>,
    /// Who counts on what helpers did.
    pub(crate) undoings: Undoings,
    /// The helpers that go on.
    pub services: Services,
}

impl Claims {
    /// With these helpers, and none but our devices.
    pub fn with(services: Services) -> Self {
        Self {
            services,
            ..Self::default()
        }
    }

    /// With foreign_disks, who have to be asked.
    pub fn beside(self, foreign_disks: Box<dyn ForeignDisks>) -> Self {
        Self {
            foreign_disks: Some(foreign_disks),
            ..self
        }
    }

    /// The neighbour that keeps a device from using a source, by the same rules. A file shows its users by itself: they
    /// have loop devices on it.
    pub(crate) fn neighbour(
        &self,
        source: SourceIdentity,
        device: &DeviceKey,
        vms: &[String],
        sharing: Sharing,
    ) -> Result<Option<DeviceKey>, String> {
        let (Some(foreign_disks), SourceIdentity::BlockDevice { major, minor }) = (&self.foreign_disks, source) else {
            return Ok(None);
        };
        let users = foreign_disks.users(major, minor)?;
        let forbids = users.into_iter().find(|user| user.forbids(device, vms, sharing));
        Ok(forbids.map(|user| user.device))
    }

    /// Claims a source for a device of a virtual machine (`vms`: its own `vm` node, and that of a stub domain's
    /// target). Answers with the other user if the rules forbid it: a writer must be alone, a machine may share with
    /// itself.
    pub fn claim(
        &self,
        source: SourceIdentity,
        device: &DeviceKey,
        vms: &[String],
        sharing: Sharing,
    ) -> Result<(), DeviceKey> {
        let mut table = self.table();
        let claims = table.entry(source).or_default();
        let mut others = claims.iter().map(|granted| &granted.claim);
        if let Some(other) = others.find(|other| other.forbids(device, vms, sharing)) {
            return Err(other.device.clone());
        }
        put(claims, device, vms, sharing, true);
        Ok(())
    }

    /// Takes back, after a restart, a claim that was granted before: in what order they came is not known any more, and
    /// who does not care may have come after who was alone.
    pub fn adopt(&self, source: SourceIdentity, device: &DeviceKey, vms: &[String], sharing: Sharing) {
        put(self.table().entry(source).or_default(), device, vms, sharing, false);
    }

    /// Whether another device of the same virtual machine has claimed the source before and is still being connected. What
    /// its handler makes of the source the two may be meant to share.
    pub(crate) fn is_ahead(&self, source: SourceIdentity, device: &DeviceKey, vms: &[String]) -> bool {
        let table = self.table();
        let claims = table.get(&source).into_iter().flatten();
        claims
            .take_while(|granted| granted.claim.device != *device)
            .any(|granted| granted.connecting && granted.claim.is_of(device, vms))
    }

    /// The handler of a device that has claimed the source has ended.
    pub(crate) fn settle(&self, source: SourceIdentity, device: &DeviceKey) {
        let mut table = self.table();
        let claims = table.get_mut(&source).into_iter().flatten();
        claims
            .filter(|granted| granted.claim.device == *device)
            .for_each(|granted| granted.connecting = false);
    }

    /// Gives a claim up. One that is not there is no error.
    pub fn release(&self, source: SourceIdentity, device: &DeviceKey) {
        let mut table = self.table();
        if let Some(claims) = table.get_mut(&source) {
            claims.retain(|granted| granted.claim.device != *device);
            if claims.is_empty() {
                table.remove(&source);
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<SourceIdentity, Vec<Granted>>> {
        // Every change is complete before anything can panic, so a poisoned table is still a true one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a device's claim in the place of the one that it may have.
fn put(claims: &mut Vec<Granted>, device: &DeviceKey, vms: &[String], sharing: Sharing, connecting: bool) {
    claims.retain(|granted| granted.claim.device != *device);
    let claim = Claim {
        device: device.clone(),
        vms: vms.to_vec(),
        sharing,
    };
    claims.push(Granted { claim, connecting });
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: SourceIdentity = SourceIdentity::File { device: 1, inode: 2 };

    fn key(text: &str) -> DeviceKey {
        text.parse().expect("a key")
    }

    #[test]
    fn a_writer_is_alone_readers_share_and_a_machine_shares_with_itself() {
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
                .claim(DISK, &key("vbd/1/51712"), &a, first)
                .expect("the first is free");
            let second_claim = claims.claim(DISK, &key("vbd/2/51712"), vms, second);
            assert_eq!(second_claim.is_ok(), allowed, "{first:?} then {second:?} of {vms:?}");
            if !allowed {
                assert_eq!(second_claim, Err(key("vbd/1/51712")));
                claims.release(DISK, &key("vbd/1/51712"));
                assert_eq!(claims.claim(DISK, &key("vbd/2/51712"), vms, second), Ok(()));
            }
        }
    }

    #[test]
    fn of_two_of_a_machine_the_second_waits_until_the_first_is_connected() {
        let (a, b) = (["/vm/a".to_owned()], ["/vm/b".to_owned()]);
        let [first, second, other] = ["vbd3/1/51712", "vbd3/2/51712", "vbd3/3/51712"].map(key);
        let claims = Claims::default();
        for (device, vms) in [(&first, &a), (&second, &a), (&other, &b)] {
            claims
                .claim(DISK, device, vms, Sharing::Readers)
                .expect("readers share");
        }
        assert!(!claims.is_ahead(DISK, &first, &a), "it was first");
        assert!(claims.is_ahead(DISK, &second, &a));
        assert!(!claims.is_ahead(DISK, &other, &b), "it is of another machine");
        claims.settle(DISK, &first);
        assert!(!claims.is_ahead(DISK, &second, &a));
        claims.adopt(DISK, &first, &a, Sharing::Readers);
        assert!(!claims.is_ahead(DISK, &second, &a), "what was adopted is connected");
    }

    #[test]
    fn what_was_granted_is_taken_back_in_any_order() {
        let (a, b) = (["/vm/a".to_owned()], ["/vm/b".to_owned()]);
        let claims = Claims::default();
        // As they were granted: alone first.
        claims.adopt(DISK, &key("vbd/2/51712"), &b, Sharing::Unchecked);
        claims.adopt(DISK, &key("vbd/1/51712"), &a, Sharing::Alone);
        let third = claims.claim(DISK, &key("vbd/3/51712"), &[], Sharing::Readers);
        assert_eq!(third, Err(key("vbd/1/51712")));
    }
}
