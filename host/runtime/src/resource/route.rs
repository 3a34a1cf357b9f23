//! A route through a network link.

use serde::{Deserialize, Serialize};
use xenplug_system::{Error, network};

use super::kind::{AnyKind, HostAccess, ResourceKind};
use crate::{
    header::Header,
    held_resources::{HeldResources, ResourceError},
};

/// A route through a network link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The interface number.
    index: u32,
    route: network::Route,
}

impl Route {
    pub(crate) fn acquire<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        index: u32,
        route: network::Route,
    ) -> Result<(), ResourceError> {
        let grant = access.network()?;
        resources.acquire(Self { index, route }, |held| {
            access.platform.network.add_route(grant, index, &held.route)
        })
    }
}

impl ResourceKind for Route {
    fn describe(&self) -> String {
        format!("route to {}", self.route.to)
    }

    fn release(&self, _: &Header, access: HostAccess<'_>) -> Result<(), Error> {
        let grant = access.network()?;
        access.platform.network.remove_route(grant, self.index, &self.route)
    }
}
