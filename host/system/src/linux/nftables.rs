//! nftables at the ingress of links, by netlink (net/netfilter/nf_tables_api.c).
//!
//! All that comes out of a link passes its ingress before a bridge, a route or this host sees it. Each link has a
//! table of its own, `netdev xenplug-<link>`: the kernel looks through the whole table whenever a rule is added, which
//! with a thousand vifs in one would take milliseconds. The rules are written in one batch, which the kernel takes as a whole
//! or not at all.

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
        // Since Linux 6.16 a chain may wait for a link of its name to appear.
        self.links.link(link)?.ok_or_else(|| refusal::gone(link))?;
        let write = |anew: bool| {
            let mut batch = Batch::of(link);
            if anew {
                batch.delete_table();
            }
            batch.add_table();
            batch.replace_rules(&rules);
            self.sockets.tell(&batch.end())
        };
        let written = match write(false) {
            // A chain left by an earlier link of that name, which the kernel does not take for the same.
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
        match self.sockets.tell(&batch.end()) {
            Err(failure) if failure.errno != Errno::NOENT => {
                Err(failure.of(format!("lift the restrictions of {link}")))
            }
            _ => Ok(()),
        }
    }
}
