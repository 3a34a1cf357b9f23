//! Changes to a network link, which are put back.

use serde::{Deserialize, Serialize};
use xenplug_system::{
    Error, Network,
    network::{self, IfName, LinkChanges},
};

use super::kind::{AnyKind, HostAccess, ResourceKind};
use crate::{
    header::Header,
    held_resources::{HeldResources, ResourceError},
};

/// Changes to a network link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The interface number.
    index: u32,
    /// The name before the changes, for people.
    name: IfName,
    /// The changes that put the link back.
    undo: LinkChanges,
}

/// The link of that number, or an error that it has gone.
pub(crate) fn present(network: &dyn Network, index: u32) -> Result<network::Link, Error> {
    network
        .link_by_index(index)?
        .ok_or_else(|| Error::NotFound(format!("interface {index} has gone")))
}

impl Link {
    pub(crate) fn acquire<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        before: network::Link,
        changes: &LinkChanges,
    ) -> Result<(), ResourceError> {
        let grant = access.network()?;
        let index = before.index;
        let intent = Self {
            index,
            undo: undo(changes, &before),
            name: before.name,
        };
        resources.acquire(intent, |_| access.platform.network.change(grant, index, changes))
    }
}

/// The changes that put a link back. Addresses that were flushed are not put back: the kernel made them for a link that
/// was not yet a port.
fn undo(changes: &LinkChanges, before: &network::Link) -> LinkChanges {
    LinkChanges {
        flush: false,
        mac: changes.mac.map(|_| before.mac),
        mtu: changes.mtu.map(|_| before.mtu),
        name: changes.name.as_ref().map(|_| before.name.clone()),
        master: changes.master.map(|_| before.master),
        up: changes.up.map(|_| before.up),
    }
}

impl ResourceKind for Link {
    fn describe(&self) -> String {
        format!("link {}", self.name)
    }

    fn release(&self, _: &Header, access: HostAccess<'_>) -> Result<(), Error> {
        let (network, grant) = (&access.platform.network, access.network()?);
        if network.link_by_index(self.index)?.is_none() {
            return Ok(());
        }
        match network.change(grant, self.index, &self.undo) {
            Err(Error::NotFound(_)) => Ok(()),
            result => result,
        }
    }

    fn verify(&self, access: HostAccess<'_>) -> Result<(), String> {
        match access.platform.network.link_by_index(self.index) {
            Ok(None) => Err(format!("link {} is gone", self.name)),
            Ok(Some(_)) | Err(_) => Ok(()),
        }
    }

    fn link(&self) -> Option<u32> {
        Some(self.index)
    }
}
