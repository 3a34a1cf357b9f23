//! Sources that a link may send from: rules in an nftables table of its own.

pub(crate) mod rules;

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    grant::FirewallGrant,
    network::{IfName, Mac, Prefix},
};

/// Sources that a link may send from. The kernel drops all other frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Hardware address that frames must carry.
    pub mac: Option<Mac>,
    /// Sources of IPv4 packets and ARP.
    pub ipv4: Vec<Prefix>,
    /// Sources of IPv6 packets and neighbour advertisements. If there is any, link-local addresses are allowed too.
    pub ipv6: Vec<Prefix>,
    /// Set if the link may send DHCP requests.
    pub dhcp: bool,
}

/// Rules for links, each in an nftables table of its own: `netdev xenplug-<link>`.
pub trait Firewall: Send + Sync {
    /// Restricts a link to these sources, and drops what only a router or a DHCP server would send. A second call
    /// replaces the rules of the first atomically. The rules refer to the link by name, so rename it before.
    fn restrict(&self, grant: &FirewallGrant, link: &IfName, sources: &Sources) -> Result<(), Error>;

    /// Removes the rules of a link. A link without rules is no error.
    fn lift(&self, grant: &FirewallGrant, link: &IfName) -> Result<(), Error>;
}
