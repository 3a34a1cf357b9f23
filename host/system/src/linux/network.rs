//! Links, bridges, addresses and routes of the host's network namespace, by rtnetlink.

use std::{net::IpAddr, sync::mpsc::Receiver};

use super::{
    addresses, appearances, forwarding,
    links::{self, Change, is_gone, read_link, set_link},
    netlink::{Messages, Sockets},
};
use crate::{
    Error, Network,
    grant::NetworkGrant,
    network::{IfName, Link, LinkChanges, Prefix, Route, refusal},
};

/// Links and bridges of the host's network namespace.
#[derive(Debug, Default)]
pub(crate) struct LinuxNetwork {
    sockets: Sockets,
}

impl LinuxNetwork {
    fn find(&self, request: &Messages, what: impl FnOnce() -> String) -> Result<Option<Link>, Error> {
        match self.sockets.query(request, read_link) {
            Ok(links) => Ok(links.into_iter().next()),
            Err(failure) if is_gone(&failure) => Ok(None),
            Err(failure) => Err(failure.of(what())),
        }
    }

    fn existing(&self, index: u32) -> Result<Link, Error> {
        let link = self.link_by_index(index)?;
        link.ok_or_else(|| refusal::number_gone(index))
    }

    /// Makes one change. An error names it.
    fn change_one(&self, link: &Link, change: &Change) -> Result<(), Error> {
        let mut request = set_link(link.index, None);
        change.write(&mut request);
        self.sockets
            .execute(&request)
            .map_err(|failure| change.failed(link, failure))
    }

    fn set_up(&self, link: &Link, up: bool) -> Result<(), Error> {
        let what = if up { "up" } else { "down" };
        self.sockets
            .execute(&set_link(link.index, Some(up)))
            .map_err(|failure| match is_gone(&failure) {
                true => refusal::gone(&link.name),
                false => failure.of(format!("set {} {what}", link.name)),
            })
    }

    /// Returns an error unless the link with this number is a granted bridge.
    fn permit_master(&self, grant: &NetworkGrant, index: u32) -> Result<(), Error> {
        let bridge = self.existing(index)?;
        refusal::permit_bridge(grant, &bridge.name)?;
        if bridge.bridge {
            Ok(())
        } else {
            Err(refusal::no_bridge(&bridge.name))
        }
    }
}

impl Network for LinuxNetwork {
    fn exists(&self, name: &IfName) -> bool {
        // SIOCGIFINDEX does not take the lock that a netlink request takes.
        let index = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)
            .and_then(|any| rustix::net::netdevice::name_to_index(any, name.as_str()));
        index != Err(rustix::io::Errno::NODEV)
    }

    fn link(&self, name: &IfName) -> Result<Option<Link>, Error> {
        self.find(&links::by_name(name), || format!("look for {name}"))
    }

    fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        if index == 0 {
            return Ok(None);
        }
        self.find(&links::by_index(index), || {
            format!("look for the network interface with the number {index}")
        })
    }

    fn bridge(&self, grant: &NetworkGrant, name: Option<&IfName>) -> Result<Link, Error> {
        if let Some(name) = name {
            refusal::permit_bridge(grant, name)?;
            let link = self.link(name)?.ok_or_else(|| refusal::missing_bridge(Some(name)))?;
            return if link.bridge {
                Ok(link)
            } else {
                Err(refusal::no_bridge(name))
            };
        }
        let links = self
            .sockets
            .query(&links::bridges(), read_link)
            .map_err(|failure| failure.of("look for bridges"))?;
        let granted = links
            .into_iter()
            .filter(|link| link.bridge && grant.permits(link.name.as_str()));
        granted
            .min_by_key(|link| link.index)
            .ok_or_else(|| refusal::missing_bridge(None))
    }

    fn change(&self, grant: &NetworkGrant, index: u32, changes: &LinkChanges) -> Result<(), Error> {
        let link = self.existing(index)?;
        if let Some(Some(master)) = changes.master.filter(|master| *master != link.master) {
            self.permit_master(grant, master)?;
        }
        if changes.flush {
            addresses::flush(&self.sockets, &link)?;
        }
        let wanted = Change::all(&link, changes);
        // A name, and for some drivers the hardware address, is changed only while the link is down.
        let down = link.up && wanted.iter().any(Change::needs_link_down);
        let up = changes.up.unwrap_or(link.up);
        if down || (link.up && !up) {
            self.set_up(&link, false)?;
        }
        let to_raise = up && (down || !link.up);
        if wanted.is_empty() && !to_raise {
            return Ok(());
        }

        // All changes in one message. If the kernel refuses it, one by one, so that the error names the refused change.
        let mut request = set_link(link.index, to_raise.then_some(true));
        wanted.iter().for_each(|change| change.write(&mut request));
        if self.sockets.execute(&request).is_ok() {
            return Ok(());
        }
        for change in &wanted {
            self.change_one(&link, change)?;
        }
        if to_raise { self.set_up(&link, true) } else { Ok(()) }
    }

    fn add_address(&self, _: &NetworkGrant, index: u32, address: Prefix) -> Result<(), Error> {
        addresses::add(&self.sockets, &self.existing(index)?, address)
    }

    fn remove_address(&self, _: &NetworkGrant, index: u32, address: Prefix) -> Result<(), Error> {
        addresses::remove(&self.sockets, index, address)
    }

    fn add_route(&self, grant: &NetworkGrant, index: u32, route: &Route) -> Result<(), Error> {
        refusal::permit_route(grant, route.to)?;
        addresses::add_route(&self.sockets, &self.existing(index)?, route)
    }

    fn remove_route(&self, _: &NetworkGrant, index: u32, route: &Route) -> Result<(), Error> {
        addresses::remove_route(&self.sockets, index, route)
    }

    fn set_proxy_arp(&self, _: &NetworkGrant, index: u32, on: bool) -> Result<(), Error> {
        forwarding::set_proxy_arp(&self.existing(index)?.name, on)
    }

    fn address_of(&self, grant: &NetworkGrant, name: &IfName) -> Result<IpAddr, Error> {
        refusal::permit_uplink(grant, name)?;
        let link = self.link(name)?.ok_or_else(|| refusal::missing_uplink(name))?;
        addresses::first_ipv4(&self.sockets, &link)?.ok_or_else(|| refusal::no_address(name))
    }

    fn appearances(&self) -> Result<Receiver<Option<IfName>>, Error> {
        appearances::watch()
    }
}
