//! The nftables table `netdev xenplug`, by netlink (net/netfilter/nf_tables_api.c).
//!
//! Each link has a chain at its ingress, where all that comes out of it passes before a bridge, a route or this machine
//! sees it. What is written is one batch, which the kernel takes as a whole or not at all.

mod encode;

use std::{collections::HashSet, sync::Mutex};

use rustix::io::Errno;

use self::encode::Batch;
use super::{
    LinuxNetwork,
    netlink::{Failure, Protocol, Sockets, attributes, text},
};
use crate::{
    Error, Firewall, Network,
    firewall::{Sources, rules::Rules},
    grant::FirewallGrant,
    lock,
    network::{IfName, refusal},
};

/// What links of this machine's network namespace may send.
#[derive(Debug)]
pub(crate) struct LinuxFirewall {
    sockets: Sockets,
    links: LinuxNetwork,
    /// The links that were restricted in here. The kernel takes one change at a time as well.
    restricted: Mutex<HashSet<IfName>>,
}

impl Default for LinuxFirewall {
    fn default() -> Self {
        Self {
            sockets: Sockets::new(Protocol::Netfilter),
            links: LinuxNetwork::default(),
            restricted: Mutex::default(),
        }
    }
}

impl Firewall for LinuxFirewall {
    fn restrict(&self, _: &FirewallGrant, link: &IfName, sources: &Sources) -> Result<(), Error> {
        let rules = Rules::of(sources)?;
        // Since Linux 6.16 a chain may wait for a link of its name to appear.
        self.links.link(link)?.ok_or_else(|| refusal::gone(link))?;
        let mut restricted = lock(&self.restricted);
        let write = |anew: bool| {
            let mut batch = Batch::new();
            batch.add_table();
            if anew {
                batch.delete_chains(link);
            }
            batch.add_chains(link);
            batch.replace_rules(link, &rules);
            self.sockets.tell(&batch.end())
        };
        let written = match write(false) {
            // An older chain of that name, which the kernel does not take for the same.
            Err(failure) if matches!(failure.errno, Errno::EXIST | Errno::BUSY | Errno::OPNOTSUPP) => write(true),
            written => written,
        };
        match written {
            Ok(()) => {
                restricted.insert(link.clone());
                Ok(())
            }
            Err(failure) if failure.errno == Errno::NOENT => Err(refusal::gone(link)),
            Err(failure) => Err(failure.of(format!("restrict what {link} may send"))),
        }
    }

    fn lift(&self, _: &FirewallGrant, link: &IfName) -> Result<(), Error> {
        let mut restricted = lock(&self.restricted);
        let mut batch = Batch::new();
        batch.delete_chains(link);
        let failed = |failure: Failure| failure.of(format!("lift the restrictions of {link}"));
        match self.sockets.tell(&batch.end()) {
            Ok(()) => {}
            // The kernel, or an administrator, may have taken some of it.
            Err(failure) if failure.errno == Errno::NOENT => self.delete_what_is_left(link).map_err(failed)?,
            Err(failure) => return Err(failed(failure)),
        }
        restricted.remove(link);
        if restricted.is_empty() && self.chains().map_err(failed)? == 0 {
            let mut batch = Batch::new();
            batch.delete_table();
            match self.sockets.tell(&batch.end()) {
                Err(failure) if failure.errno != Errno::NOENT => return Err(failed(failure)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl LinuxFirewall {
    fn delete_what_is_left(&self, link: &IfName) -> Result<(), Failure> {
        for delete in [Batch::delete_frames_chain, Batch::delete_neighbours_chain] {
            let mut batch = Batch::new();
            delete(&mut batch, link);
            match self.sockets.tell(&batch.end()) {
                Err(failure) if failure.errno != Errno::NOENT => return Err(failure),
                _ => {}
            }
        }
        Ok(())
    }

    /// How many chains are in the table.
    fn chains(&self) -> Result<usize, Failure> {
        let all = self.sockets.ask(&encode::all_chains(), |message| {
            let (_, table) =
                attributes(message.body, encode::HEADER).find(|(kind, _)| *kind == encode::NFTA_CHAIN_TABLE)?;
            (text(table)? == encode::TABLE).then_some(())
        });
        all.map(|chains| chains.len())
    }
}
