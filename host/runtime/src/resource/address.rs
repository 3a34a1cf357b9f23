//! An address on a network link.

use serde::{Deserialize, Serialize};
use xenplug_system::{Error, network::Prefix};

use super::kind::{AnyKind, HostAccess, ResourceKind};
use crate::{
    header::Header,
    held_resources::{HeldResources, ResourceError},
};

/// An address on a network link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The interface number.
    index: u32,
    address: Prefix,
}

impl Address {
    pub(crate) fn acquire<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        index: u32,
        address: Prefix,
    ) -> Result<(), ResourceError> {
        let grant = access.network()?;
        resources.acquire(Self { index, address }, |_| {
            access.platform.network.add_address(grant, index, address)
        })
    }
}

impl ResourceKind for Address {
    fn describe(&self) -> String {
        format!("address {}", self.address)
    }

    fn release(&self, _: &Header, access: HostAccess<'_>) -> Result<(), Error> {
        let grant = access.network()?;
        access.platform.network.remove_address(grant, self.index, self.address)
    }
}
