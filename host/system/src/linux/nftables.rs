//! nftables at the ingress of links, by netlink (net/netfilter/nf_tables_api.c).
//!
//! A frame from a link passes its ingress before a bridge, a route or the host sees it. Each link has a table of its
//! own, `netdev xenplug-<link>`: the kernel traverses the whole table whenever a rule is added, which would take
//! milliseconds with a thousand vifs in one table. The rules are written in one batch, which the kernel applies as a
//! whole or not at all.

mod encode;

use rustix::io::Errno;

use self::encode::Batch;
use super::{
    LinuxNetwork,
    netlink::{Protocol, Sockets},
};
use crate::{
    Error, Firewall, Network,
    firewall::{Sources, rules::Rules},
    grant::FirewallGrant,
    network::{IfName, refusal},
};

/// Firewall of the links in the host's network namespace.
#[derive(Debug)]
pub(crate) struct LinuxFirewall {
    sockets: Sockets,
    links: LinuxNetwork,
}

impl Default for LinuxFirewall {
    fn default() -> Self {
        Self {
            sockets: Sockets::new(Protocol::Netfilter),
            links: LinuxNetwork::default(),
        }
    }
}

impl Firewall for LinuxFirewall {
    fn restrict(&self, _: &FirewallGrant, link: &IfName, sources: &Sources) -> Result<(), Error> {
        let rules = Rules::of(sources)?;
        // Since Linux 6.16 the kernel accepts a chain for a link that does not exist yet.
        self.links.link(link)?.ok_or_else(|| refusal::gone(link))?;
        let write = |delete_first: bool| {
            let mut batch = Batch::of(link);
            if delete_first {
                batch.delete_table();
            }
            batch.add_table();
            batch.replace_rules(&rules);
            self.sockets.execute(&batch.end())
        };
        let written = match write(false) {
            // The table is left from an earlier link with this name, and its chain is not on the new link: delete it
            // first.
            Err(failure) if matches!(failure.errno, Errno::EXIST | Errno::BUSY | Errno::OPNOTSUPP) => write(true),
            written => written,
        };
        written.map_err(|failure| match failure.errno {
            Errno::NOENT | Errno::NODEV => refusal::gone(link),
            _ => failure.of(format!("restrict what {link} may send")),
        })
    }

    fn lift(&self, _: &FirewallGrant, link: &IfName) -> Result<(), Error> {
        let mut batch = Batch::of(link);
        batch.delete_table();
        match self.sockets.execute(&batch.end()) {
            Err(failure) if failure.errno != Errno::NOENT => {
                Err(failure.of(format!("lift the restrictions of {link}")))
            }
            _ => Ok(()),
        }
    }
}
