//! Links and bridges, by rtnetlink.

pub(crate) mod refusal;

use std::{net::IpAddr, sync::mpsc::Receiver};

use serde::{Deserialize, Serialize};

pub use crate::address::{IfName, Mac, ParseError, Prefix};
use crate::{Error, grant::NetworkGrant};

/// State of a network interface when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Interface number, which a rename does not change.
    pub index: u32,
    /// Interface name.
    pub name: IfName,
    /// MTU in bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Mac,
    /// Set if it is administratively up.
    pub up: bool,
    /// Interface number of the bridge whose port it is.
    pub master: Option<u32>,
    /// Set if it is a bridge.
    pub bridge: bool,
}

/// Changes of a link. A field that is `None` stays. One call makes them in this order: flush, (down), address, MTU,
/// name, master, up or down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkChanges {
    /// Removes all addresses.
    pub flush: bool,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// New name.
    pub name: Option<IfName>,
    /// Bridge to become a port of; `Some(None)` for none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "null_is_some_none"
    )]
    pub master: Option<Option<u32>>,
    /// Administrative state.
    pub up: Option<bool>,
}

/// Deserializes null as `Some(None)`. By default serde would not distinguish it from a missing field, which is `None`.
fn null_is_some_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A route through a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub to: Prefix,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Metric; the kernel chooses one for `None`.
    pub metric: Option<u32>,
}

/// Links and bridges.
pub trait Network: Send + Sync {
    /// Tells whether a link exists. Returns `true` also if that cannot be determined: the next call on the link reports
    /// the reason. This is the only call that never blocks, so an asynchronous task may make it.
    fn exists(&self, name: &IfName) -> bool;

    /// Reads a link by name. Needs no grant, because it changes nothing.
    fn link(&self, name: &IfName) -> Result<Option<Link>, Error>;

    /// Reads a link by interface number.
    fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error>;

    /// Reads the granted bridge with this name, or without a name the granted bridge with the lowest interface number.
    fn bridge(&self, grant: &NetworkGrant, name: Option<&IfName>) -> Result<Link, Error>;

    /// Makes changes to a link. An error names the change that failed. A change that the link already has is not made
    /// again.
    fn change(&self, grant: &NetworkGrant, index: u32, changes: &LinkChanges) -> Result<(), Error>;

    /// Adds an address. An existing one is no error.
    fn add_address(&self, grant: &NetworkGrant, index: u32, address: Prefix) -> Result<(), Error>;

    /// Removes an address. A missing one is no error.
    fn remove_address(&self, grant: &NetworkGrant, index: u32, address: Prefix) -> Result<(), Error>;

    /// Adds a route. An existing one is no error.
    fn add_route(&self, grant: &NetworkGrant, index: u32, route: &Route) -> Result<(), Error>;

    /// Removes a route. A missing one is no error.
    fn remove_route(&self, grant: &NetworkGrant, index: u32, route: &Route) -> Result<(), Error>;

    /// Sets whether the kernel answers ARP requests on a link for addresses that it routes elsewhere (`proxy_arp`).
    fn set_proxy_arp(&self, grant: &NetworkGrant, index: u32, on: bool) -> Result<(), Error>;

    /// Returns the first IPv4 address of a granted link.
    fn address_of(&self, grant: &NetworkGrant, name: &IfName) -> Result<IpAddr, Error>;

    /// Starts a watch, which sends the names of new and renamed links. `None` reports that some names were lost, and
    /// that the receiver should read the links again. The watch ends with the first link after the receiver is dropped.
    fn appearances(&self) -> Result<Receiver<Option<IfName>>, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_changes_round_trip_through_json() {
        for master in [None, Some(None), Some(Some(7))] {
            let changes = LinkChanges {
                master,
                up: Some(false),
                ..LinkChanges::default()
            };
            let text = serde_json::to_string(&changes).expect("JSON");
            assert_eq!(
                serde_json::from_str::<LinkChanges>(&text).expect("changes"),
                changes,
                "{text}"
            );
        }
    }
}
