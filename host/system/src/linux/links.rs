//! Messages about links, written and read (net/core/rtnetlink.c).

use rustix::io::Errno;

use super::netlink::{Failure, Message, Messages, NLM_F_ACK, NLM_F_DUMP, attributes, text, u32_at};
use crate::{
    Error,
    network::{IfName, Link, LinkChanges, Mac, refusal},
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

/// Length of `struct ifinfomsg`.
const HEADER: usize = 16;

/// A change of one attribute of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Mac(Mac),
    Mtu(u32),
    Name(IfName),
    Master(Option<u32>),
}

impl Change {
    /// Selects the changes that the link needs, in the order in which they are made.
    pub(super) fn all(link: &Link, changes: &LinkChanges) -> Vec<Self> {
        let mac = changes.mac.filter(|mac| *mac != link.mac).map(Self::Mac);
        let mtu = changes.mtu.filter(|mtu| *mtu != link.mtu).map(Self::Mtu);
        let name = changes.name.clone().filter(|name| *name != link.name).map(Self::Name);
        let master = changes.master.filter(|master| *master != link.master).map(Self::Master);
        [mac, mtu, name, master].into_iter().flatten().collect()
    }

    pub(super) fn needs_link_down(&self) -> bool {
        matches!(self, Self::Mac(_) | Self::Name(_))
    }

    pub(super) fn write(&self, request: &mut Messages) {
        match self {
            Self::Mac(mac) => request.attribute(IFLA_ADDRESS, &mac.0),
            Self::Mtu(mtu) => request.attribute(IFLA_MTU, &mtu.to_ne_bytes()),
            Self::Name(name) => request.text(IFLA_IFNAME, name.as_str()),
            Self::Master(master) => request.attribute(IFLA_MASTER, &master.unwrap_or(0).to_ne_bytes()),
        };
    }

    pub(super) fn failed(&self, link: &Link, failure: Failure) -> Error {
        if is_gone(&failure) && !matches!(self, Self::Master(Some(_))) {
            return refusal::gone(&link.name);
        }
        let name = &link.name;
        match (self, failure.errno) {
            (Self::Mac(mac), Errno::ADDRNOTAVAIL) => refusal::mac(name, *mac),
            (Self::Mtu(mtu), Errno::INVAL | Errno::RANGE) => refusal::mtu(name, *mtu),
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

/// Tells whether the kernel reports that the link does not exist.
pub(super) fn is_gone(failure: &Failure) -> bool {
    matches!(failure.errno, Errno::NODEV | Errno::NXIO)
}

/// Requests the link with this name.
pub(super) fn by_name(name: &IfName) -> Messages {
    let mut request = Messages::single_answer(RTM_GETLINK, &header(0, None));
    request
        .text(IFLA_IFNAME, name.as_str())
        .attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    request
}

/// Requests the link with this number.
pub(super) fn by_index(index: u32) -> Messages {
    let mut request = Messages::single_answer(RTM_GETLINK, &header(index, None));
    request.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    request
}

/// Requests all bridges.
pub(super) fn bridges() -> Messages {
    // No mask that skips statistics: with a mask, the kernel first computes the message size of every link.
    let mut request = Messages::one(RTM_GETLINK, NLM_F_DUMP, &header(0, None));
    request.nest(IFLA_LINKINFO, |request| _ = request.text(IFLA_INFO_KIND, "bridge"));
    request
}

/// Requests a change of a link, and with `up` of its administrative state.
pub(super) fn set_link(index: u32, up: Option<bool>) -> Messages {
    Messages::one(RTM_SETLINK, NLM_F_ACK, &header(index, up))
}

/// Encodes `struct ifinfomsg`: family, type, index, flags, and the mask of flags to change.
fn header(index: u32, up: Option<bool>) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if let Some(up) = up {
        header[8..12].copy_from_slice(&(if up { IFF_UP } else { 0 }).to_ne_bytes());
        header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    header
}

/// Reads the link that a message describes.
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

/// Reads only the name of the link that a message describes.
pub(super) fn read_name(message: &Message<'_>) -> Option<IfName> {
    let (_, name) = attributes(message.body, HEADER).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    text(name)?.parse().ok()
}

/// Requests all links.
pub(super) fn all_links() -> Messages {
    let mut request = Messages::one(RTM_GETLINK, NLM_F_DUMP, &header(0, None));
    request.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    request
}
