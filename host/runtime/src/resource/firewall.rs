//! Rules for the packets that come out of a link.

use serde::{Deserialize, Serialize};
use xenplug_system::{Error, firewall::Sources, network::IfName};

use super::{
    kind::{AnyKind, HostAccess, ResourceKind},
    link::present,
};
use crate::{
    header::Header,
    held_resources::{HeldResources, ResourceError},
};

/// Firewall rules for a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// The link's name when the rules were made.
    link: IfName,
}

impl Firewall {
    pub(crate) fn acquire<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        index: u32,
        sources: &Sources,
    ) -> Result<(), ResourceError> {
        let grant = access.firewall()?;
        let link = present(&*access.platform.network, index)?.name;
        resources.acquire(Self { link }, |held| {
            access.platform.firewall.restrict(grant, &held.link, sources)
        })
    }
}

impl ResourceKind for Firewall {
    fn describe(&self) -> String {
        format!("rules for {}", self.link)
    }

    fn release(&self, _: &Header, access: HostAccess<'_>) -> Result<(), Error> {
        access.platform.firewall.lift(access.firewall()?, &self.link)
    }
}
