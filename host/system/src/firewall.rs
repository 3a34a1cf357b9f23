//! Sources that a link may send from: rules in an nftables table of its own.

pub(crate) mod rules;

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    grant::FirewallGrant,
    network::{IfName, Mac, Prefix},
};

/// Sources that a link may send from; all other frames are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The hardware address frames must carry.
    pub mac: Option<Mac>,
    /// Sources of IPv4 packets and ARP.
    pub ipv4: Vec<Prefix>,
    /// Sources of IPv6 packets and neighbour advertisements: with any of them, link-local addresses too.
    pub ipv6: Vec<Prefix>,
    /// Set if it may ask for an address by DHCP.
    pub dhcp: bool,
}

/// Rules for links in an nftables table of each, `netdev xenplug-<link>`.
pub trait Firewall: Send + Sync {
    /// Lets a link send from these sources alone, and nothing that only a router or a DHCP server would send. A second
    /// call replaces the first, without a moment in between. The rules go by the link's name: rename it before.
    fn restrict(&self, grant: &FirewallGrant, link: &IfName, sources: &Sources) -> Result<(), Error>;

    /// Takes the rules of a link away. None there is no error.
    fn lift(&self, grant: &FirewallGrant, link: &IfName) -> Result<(), Error>;
}
