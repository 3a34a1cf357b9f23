//! The kernel's answers to ARP requests on a link for addresses elsewhere (`proxy_arp`).

use serde::{Deserialize, Serialize};
use xenplug_system::Error;

use super::kind::{AnyKind, HostAccess, ResourceKind};
use crate::{
    header::Header,
    held_resources::{HeldResources, ResourceError},
};

/// Proxy ARP on a network link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyArp {
    /// The interface number.
    index: u32,
}

impl ProxyArp {
    pub(crate) fn acquire<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        index: u32,
    ) -> Result<(), ResourceError> {
        let grant = access.network()?;
        resources.acquire(Self { index }, |_| {
            access.platform.network.set_proxy_arp(grant, index, true)
        })
    }
}

impl ResourceKind for ProxyArp {
    fn describe(&self) -> String {
        "proxy_arp".to_owned()
    }

    fn release(&self, _: &Header, access: HostAccess<'_>) -> Result<(), Error> {
        let grant = access.network()?;
        match access.platform.network.set_proxy_arp(grant, self.index, false) {
            Err(Error::NotFound(_)) => Ok(()),
            result => result,
        }
    }
}
