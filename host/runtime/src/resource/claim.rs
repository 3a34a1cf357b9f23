//! A claim on a disk: no other device uses the disk against the sharing rules of `/etc/xen/scripts/block`.

use serde::{Deserialize, Serialize};
use xenplug_system::{
    Error,
    block::{Source, SourceIdentity},
    grant::Access,
};
use xenplug_xenbus::DeviceKey;

use super::kind::{AnyKind, HostAccess, ResourceKind};
use crate::{
    header::Header,
    held_resources::{HeldResources, ResourceError},
    shared::{self, SharedResources, Sharing},
};

/// A claim on a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    disk: SourceIdentity,
    sharing: Sharing,
}

impl Claim {
    /// Checks that nobody else uses the disk, and claims it. The scripts' lock is held meanwhile, and until the device
    /// is published: the scripts check and publish under it, so what is found here stays true.
    pub(crate) fn acquire<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        source: &Source,
        sharing: Sharing,
    ) -> Result<shared::Claim, ResourceError> {
        let path = source.facts.path.display();
        let disk = source.facts.identity;
        let claim = of(resources.header(), sharing);
        let uses = match sharing {
            Sharing::Alone => Some(Access::ReadWrite),
            Sharing::Readers => Some(Access::ReadOnly),
            Sharing::Unchecked => None,
        };
        if let Some(uses) = uses
            && let Some(user) = access.platform.block.used_by(source, uses, &[])?
        {
            return Err(Error::Busy(format!("{path} is in use by {user}")).into());
        }
        let used_by = |other: DeviceKey| {
            let writes = if sharing == Sharing::Alone { "" } else { " for writing" };
            Error::Busy(format!(
                "{path} is used by domain {} (as {other}){writes}",
                other.frontend
            ))
        };
        // A file needs no question: foreign users have loop devices on it, which the kernel shows.
        if let SourceIdentity::BlockDevice { major, minor } = disk {
            let users = access.shared.store.foreign_users(major, minor);
            let users = users.map_err(ResourceError::Store)?;
            if let Some(user) = users.into_iter().find(|user| user.forbids(&claim)) {
                return Err(used_by(user.device).into());
            }
        }
        resources.acquire(Self { disk, sharing }, |_| {
            access.shared.claims.acquire(disk, claim.clone()).map_err(used_by)
        })?;
        Ok(claim)
    }
}

fn of(owner: &Header, sharing: Sharing) -> shared::Claim {
    shared::Claim {
        device: owner.identity.key.clone(),
        vms: owner.vms.clone(),
        sharing,
    }
}

impl ResourceKind for Claim {
    fn describe(&self) -> String {
        let sharing = match self.sharing {
            Sharing::Readers => "shared with readers",
            Sharing::Alone => "used alone",
            Sharing::Unchecked => "used unchecked",
        };
        match self.disk {
            SourceIdentity::File { device, inode } => format!("file {device:x}:{inode} {sharing}"),
            SourceIdentity::BlockDevice { major, minor } => format!("block device {major}:{minor} {sharing}"),
        }
    }

    fn release(&self, owner: &Header, access: HostAccess<'_>) -> Result<(), Error> {
        access.shared.claims.release(self.disk, &owner.identity.key);
        Ok(())
    }

    fn reclaim(&mut self, owner: &Header, access: HostAccess<'_>) -> Result<(), String> {
        access.shared.claims.reclaim(self.disk, of(owner, self.sharing));
        Ok(())
    }

    fn handler_returned(&self, owner: &Header, shared: &SharedResources) {
        shared.claims.handler_returned(self.disk, &owner.identity.key);
    }
}
