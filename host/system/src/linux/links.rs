//! Links and bridges: looking at them, and changing them (net/core/rtnetlink.c).

use std::{net::IpAddr, sync::mpsc::Receiver};

use rustix::io::Errno;

use super::{
    addresses, appearances, forwarding,
    netlink::{Failure, Message, Messages, NLM_F_ACK, NLM_F_DUMP, Sockets, attributes, text, u32_at},
};
use crate::{
    Error, Network,
    grant::NetworkGrant,
    network::{IfName, Link, LinkChanges, Mac, Prefix, Route, refusal},
};

/// `RTM_NEWLINK` (include/uapi/linux/rtnetlink.h).
pub(super) const RTM_NEWLINK: u16 = 16;
/// `RTM_DELLINK`.
pub(super) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

// include/uapi/linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

const IFF_UP: u32 = 1;

/// The length of `struct ifinfomsg`.
const HEADER: usize = 16;

/// Links and bridges of this machine's network namespace.
#[derive(Debug, Default)]
pub(crate) struct LinuxNetwork {
    sockets: Sockets,
}

impl LinuxNetwork {
    fn look(&self, request: &Messages, what: impl FnOnce() -> String) -> Result<Option<Link>, Error> {
        match self.sockets.ask(request, read_link) {
            Ok(links) => Ok(links.into_iter().next()),
            Err(failure) if is_gone(&failure) => Ok(None),
            Err(failure) => Err(failure.of(what())),
        }
    }

    fn existing(&self, index: u32) -> Result<Link, Error> {
        let link = self.link_by_index(index)?;
        link.ok_or_else(|| refusal::number_gone(index))
    }

    /// Makes one change; an error names it.
    fn change_one(&self, link: &Link, change: &Change) -> Result<(), Error> {
        let mut request = set_link(link.index, None);
        change.write(&mut request);
        self.sockets
            .tell(&request)
            .map_err(|failure| change.failed(link, failure))
    }

    fn set_up(&self, link: &Link, up: bool) -> Result<(), Error> {
        let what = if up { "up" } else { "down" };
        self.sockets
            .tell(&set_link(link.index, Some(up)))
            .map_err(|failure| match is_gone(&failure) {
                true => refusal::gone(&link.name),
                false => failure.of(format!("set {} {what}", link.name)),
            })
    }

    /// The bridge to be a port of has to be granted, and a bridge.
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
        // SIOCGIFINDEX: without the lock that a look by netlink takes.
        let index = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)
            .and_then(|any| rustix::net::netdevice::name_to_index(any, name.as_str()));
        index != Err(rustix::io::Errno::NODEV)
    }

    fn link(&self, name: &IfName) -> Result<Option<Link>, Error> {
        let mut request = Messages::question(RTM_GETLINK, &header(0, None));
        request
            .text(IFLA_IFNAME, name.as_str())
            .attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        self.look(&request, || format!("look for {name}"))
    }

    fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        if index == 0 {
            return Ok(None);
        }
        let mut request = Messages::question(RTM_GETLINK, &header(index, None));
        request.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        self.look(&request, || {
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
        // Without a mask: asked to leave out statistics, the kernel first measures every link it has.
        let mut request = Messages::one(RTM_GETLINK, NLM_F_DUMP, &header(0, None));
        request.nest(IFLA_LINKINFO, |request| _ = request.text(IFLA_INFO_KIND, "bridge"));
        let links = self
            .sockets
            .ask(&request, read_link)
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

        // All in one message. Where the kernel refuses a part of it, one by one: to say which.
        let mut request = set_link(link.index, to_raise.then_some(true));
        wanted.iter().for_each(|change| change.write(&mut request));
        if self.sockets.tell(&request).is_ok() {
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

/// A change to a link by one attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Mac(Mac),
    Mtu(u32),
    Name(IfName),
    Master(Option<u32>),
}

impl Change {
    /// Those that are not so already, in the order in which they are made.
    fn all(link: &Link, changes: &LinkChanges) -> Vec<Self> {
        let mac = changes.mac.filter(|mac| *mac != link.mac).map(Self::Mac);
        let mtu = changes.mtu.filter(|mtu| *mtu != link.mtu).map(Self::Mtu);
        let name = changes.name.clone().filter(|name| *name != link.name).map(Self::Name);
        let master = changes.master.filter(|master| *master != link.master).map(Self::Master);
        [mac, mtu, name, master].into_iter().flatten().collect()
    }

    fn needs_link_down(&self) -> bool {
        matches!(self, Self::Mac(_) | Self::Name(_))
    }

    fn write(&self, request: &mut Messages) {
        match self {
            Self::Mac(mac) => request.attribute(IFLA_ADDRESS, &mac.0),
            Self::Mtu(mtu) => request.attribute(IFLA_MTU, &mtu.to_ne_bytes()),
            Self::Name(name) => request.text(IFLA_IFNAME, name.as_str()),
            Self::Master(master) => request.attribute(IFLA_MASTER, &master.unwrap_or(0).to_ne_bytes()),
        };
    }

    fn failed(&self, link: &Link, failure: Failure) -> Error {
        if is_gone(&failure) && !matches!(self, Self::Master(Some(_))) {
            return refusal::gone(&link.name);
        }
        let name = &link.name;
        match (self, failure.errno) {
            (Self::Mac(mac), Errno::ADDRNOTAVAIL) => Error::Invalid {
                key: "mac",
                cause: format!("{mac} cannot be the hardware address of {name}"),
            },
            (Self::Mtu(mtu), Errno::INVAL | Errno::RANGE) => Error::Invalid {
                key: "mtu",
                cause: format!("{mtu} is out of the range of {name}"),
            },
            (Self::Name(new), Errno::EXIST) => refusal::name_taken(name, new),
            (Self::Mac(mac), _) => failure.of(format!("set the hardware address of {name} to {mac}")),
            (Self::Mtu(mtu), _) => failure.of(format!("set the MTU of {name} to {mtu}")),
            (Self::Name(new), _) => failure.of(format!("rename {name} to {new}")),
            (Self::Master(None), _) => failure.of(format!("take {name} out of its bridge")),
            (Self::Master(Some(master)), Errno::NODEV | Errno::INVAL) => {
                Error::NotFound(format!("{name} or the bridge for it, number {master}, is gone"))
            }
            (Self::Master(Some(master)), _) => {
                failure.of(format!("make {name} a port of the bridge with the number {master}"))
            }
        }
    }
}

/// Whether a link is not, or no longer, there.
pub(super) fn is_gone(failure: &Failure) -> bool {
    matches!(failure.errno, Errno::NODEV | Errno::NXIO)
}

fn set_link(index: u32, up: Option<bool>) -> Messages {
    Messages::one(RTM_SETLINK, NLM_F_ACK, &header(index, up))
}

/// `struct ifinfomsg`: family, type, index, flags, and which of these to change.
fn header(index: u32, up: Option<bool>) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if let Some(up) = up {
        header[8..12].copy_from_slice(&(if up { IFF_UP } else { 0 }).to_ne_bytes());
        header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    header
}

/// The link that a message describes.
pub(super) fn read_link(message: &Message<'_>) -> Option<Link> {
    let mut link = Link {
        index: u32_at(message.body, 4)?,
        name: read_name(message)?,
        mtu: 0,
        mac: Mac([0; 6]),
        up: u32_at(message.body, 8)? & IFF_UP != 0,
        master: None,
        bridge: false,
    };
    for (kind, value) in attributes(message.body, HEADER) {
        match kind {
            IFLA_ADDRESS => link.mac = Mac(value.try_into().unwrap_or_default()),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINKINFO => {
                link.bridge =
                    attributes(value, 0).any(|(kind, value)| kind == IFLA_INFO_KIND && text(value) == Some("bridge"));
            }
            _ => {}
        }
    }
    Some(link)
}

/// The name of the link that a message describes.
pub(super) fn read_name(message: &Message<'_>) -> Option<IfName> {
    let (_, name) = attributes(message.body, HEADER).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    text(name)?.parse().ok()
}

/// A request for all links.
pub(super) fn all_links() -> Messages {
    let mut request = Messages::one(RTM_GETLINK, NLM_F_DUMP, &header(0, None));
    request.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    request
}
