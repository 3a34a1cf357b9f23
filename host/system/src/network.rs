//! Links and bridges, by rtnetlink.

pub(crate) mod refusal;

use std::{net::IpAddr, sync::mpsc::Receiver};

use serde::{Deserialize, Serialize};

pub use crate::address::{IfName, Mac, ParseError, Prefix};
use crate::{Error, grant::NetworkGrant};

/// A network interface, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The interface number. It stays when the name changes.
    pub index: u32,
    /// Name of the interface.
    pub name: IfName,
    /// MTU in bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Mac,
    /// Administratively up.
    pub up: bool,
    /// The interface number of the bridge it is a port of.
    pub master: Option<u32>,
    /// Set if it is a bridge.
    pub bridge: bool,
}

/// Changes of a link; a field that is `None` stays. Made in one step in this order: flush, (down), address, MTU, name,
/// master, up or down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkChanges {
    /// Remove all addresses.
    pub flush: bool,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// A new name.
    pub name: Option<IfName>,
    /// The bridge to be a port of; `Some(None)` for none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "null_is_some_none"
    )]
    pub master: Option<Option<u32>>,
    /// Up or down.
    pub up: Option<bool>,
}

/// Reads a value that is there: null is `Some(None)`, and what is left out `None`. They would else be the same.
fn null_is_some_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A route through a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub to: Prefix,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// The metric.
    pub metric: Option<u32>,
}

/// Links and bridges.
pub trait Network: Send + Sync {
    /// Tells whether there is a link of that name; also if that cannot be found out, as the next call on it says why.
    /// Of all the calls the one that never blocks, so that it may be made from anywhere.
    fn exists(&self, name: &IfName) -> bool;

    /// The link of that name, if there is one. No grant: it looks and changes nothing.
    fn link(&self, name: &IfName) -> Result<Option<Link>, Error>;

    /// The link of that number, if there is one.
    fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error>;

    /// The granted bridge of that name, or the first granted one by interface number.
    fn bridge(&self, grant: &NetworkGrant, name: Option<&IfName>) -> Result<Link, Error>;

    /// Makes changes to a link; all of them, or an error that names the one that failed. A change that is already so
    /// is not made again.
    fn change(&self, grant: &NetworkGrant, index: u32, changes: &LinkChanges) -> Result<(), Error>;

    /// Adds an address; one that is there is no error.
    fn add_address(&self, grant: &NetworkGrant, index: u32, address: Prefix) -> Result<(), Error>;

    /// Removes an address; one that is gone is no error.
    fn remove_address(&self, grant: &NetworkGrant, index: u32, address: Prefix) -> Result<(), Error>;

    /// Adds a route; one that is there is no error.
    fn add_route(&self, grant: &NetworkGrant, index: u32, route: &Route) -> Result<(), Error>;

    /// Removes a route; one that is gone is no error.
    fn remove_route(&self, grant: &NetworkGrant, index: u32, route: &Route) -> Result<(), Error>;

    /// Lets the kernel answer ARP requests on a link for what it routes elsewhere, or not (`proxy_arp`).
    fn set_proxy_arp(&self, grant: &NetworkGrant, index: u32, on: bool) -> Result<(), Error>;

    /// The first IPv4 address of the granted link of that name.
    fn address_of(&self, grant: &NetworkGrant, name: &IfName) -> Result<IpAddr, Error>;

    /// The names of links as they appear (or take a new name), for as long as the receiver is kept. `None` tells that
    /// some were lost, and that one should look again. The watch ends with the first link after the receiver is dropped.
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
