//! Addresses of links, and routes through them (net/ipv4/devinet.c, net/ipv6/addrconf.c, fib_frontend.c, route.c).

use std::net::IpAddr;

use rustix::io::Errno;

use super::{
    links::is_gone,
    netlink::{Message, Messages, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Sockets, attributes, u32_at},
};
use crate::{
    Error,
    network::{Link, Prefix, Route, refusal},
};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

// include/uapi/linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_SECONDARY: u8 = 1;

// include/linux/socket.h
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

// include/uapi/linux/rtnetlink.h
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_UNSPEC: u8 = 0;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTN_UNSPEC: u8 = 0;
const RTN_UNICAST: u8 = 1;

/// Adds an address to a link.
pub(super) fn add(sockets: &Sockets, link: &Link, address: Prefix) -> Result<(), Error> {
    match sockets.execute(&request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, link.index, address)) {
        Ok(()) => Ok(()),
        Err(failure) if failure.errno == Errno::EXIST => Ok(()),
        Err(failure) if is_gone(&failure) => Err(refusal::gone(&link.name)),
        Err(failure) => Err(failure.of(format!("add {address} to {}", link.name))),
    }
}

/// Removes an address, if it and the link are there.
pub(super) fn remove(sockets: &Sockets, index: u32, address: Prefix) -> Result<(), Error> {
    match sockets.execute(&request(RTM_DELADDR, 0, index, address)) {
        Ok(()) => Ok(()),
        Err(failure) if is_gone(&failure) || failure.errno == Errno::ADDRNOTAVAIL => Ok(()),
        Err(failure) => Err(failure.of(format!(
            "remove {address} from the network interface with the number {index}"
        ))),
    }
}

/// Returns the first primary IPv4 address of a link, which `ip -4 address show primary` lists first
/// (tools/hotplug/Linux/vif-common.sh, `ip_of`).
pub(super) fn first_ipv4(sockets: &Sockets, link: &Link) -> Result<Option<IpAddr>, Error> {
    let all = Messages::one(RTM_GETADDR, NLM_F_DUMP, &address_header(AF_INET, 0, link.index));
    let read = |message: &Message<'_>| {
        let primary = message.body.get(2)? & IFA_F_SECONDARY == 0;
        read_address(message).filter(|_| primary)
    };
    let found = sockets
        .query(&all, read)
        .map_err(|failure| failure.of(format!("look for the addresses of {}", link.name)))?;
    let mut own = found.into_iter().filter(|(index, _)| *index == link.index);
    Ok(own.next().map(|(_, prefix)| prefix.address))
}

/// Removes all addresses of a link.
pub(super) fn flush(sockets: &Sockets, link: &Link) -> Result<(), Error> {
    let what = || format!("look for the addresses of {}", link.name);
    let all = Messages::one(RTM_GETADDR, NLM_F_DUMP, &address_header(0, 0, link.index));
    let found = sockets
        .query(&all, read_address)
        .map_err(|failure| failure.of(what()))?;
    for (index, address) in found {
        // The kernel may ignore the index in the request, and list the addresses of all links.
        if index == link.index {
            remove(sockets, index, address)?;
        }
    }
    Ok(())
}

/// Adds a route through a link.
pub(super) fn add_route(sockets: &Sockets, link: &Link, route: &Route) -> Result<(), Error> {
    let mut request = route_request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, route);
    request.attribute(RTA_OIF, &link.index.to_ne_bytes());
    let to = route.to.network();
    match sockets.execute(&request) {
        Ok(()) => Ok(()),
        Err(failure) if failure.errno == Errno::EXIST && is_routed(sockets, link.index, route)? => Ok(()),
        Err(failure) if failure.errno == Errno::EXIST => Err(Error::Busy(format!(
            "there is another route to {to}, and so none through {}",
            link.name
        ))),
        Err(failure) if is_gone(&failure) => Err(refusal::gone(&link.name)),
        Err(failure) => Err(failure.of(format!("add a route to {to} through {}", link.name))),
    }
}

/// Removes a route, if it and the link are there.
pub(super) fn remove_route(sockets: &Sockets, index: u32, route: &Route) -> Result<(), Error> {
    let mut request = route_request(RTM_DELROUTE, NLM_F_ACK, route);
    request.attribute(RTA_OIF, &index.to_ne_bytes());
    match sockets.execute(&request) {
        Ok(()) => Ok(()),
        Err(failure) if is_gone(&failure) || matches!(failure.errno, Errno::SRCH | Errno::NOENT) => Ok(()),
        Err(failure) => Err(failure.of(format!(
            "remove the route to {} through the network interface with the number {index}",
            route.to.network()
        ))),
    }
}

/// Tells whether the link has this route.
fn is_routed(sockets: &Sockets, index: u32, route: &Route) -> Result<bool, Error> {
    let mut header = route_header(route.to, RT_SCOPE_UNIVERSE, RTPROT_UNSPEC, RTN_UNSPEC);
    header[1] = 0;
    let mut request = Messages::one(RTM_GETROUTE, NLM_F_DUMP, &header);
    request.attribute(RTA_OIF, &index.to_ne_bytes());
    let wanted = (index, route.to.network(), route.metric);
    let read =
        |message: &Message<'_>| read_route(message, route.to.address.is_ipv4()).filter(|found| is_same(*found, wanted));
    let found = sockets
        .query(&request, read)
        .map_err(|failure| failure.of("look for routes"))?;
    Ok(!found.is_empty())
}

/// Compares routes. The kernel chooses the metric of an IPv6 route that is added without one.
fn is_same(found: (u32, Prefix, Option<u32>), wanted: (u32, Prefix, Option<u32>)) -> bool {
    (found.0, found.1) == (wanted.0, wanted.1) && (wanted.2.is_none() || found.2 == wanted.2)
}

fn request(kind: u16, flags: u16, index: u32, address: Prefix) -> Messages {
    let family = family(address.address);
    let mut request = Messages::one(kind, flags | NLM_F_ACK, &address_header(family, address.length, index));
    let bytes = octets(address.address);
    request.attribute(IFA_LOCAL, &bytes).attribute(IFA_ADDRESS, &bytes);
    request
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index.
fn address_header(family: u8, length: u8, index: u32) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family, length, 0, 0, a, b, c, d]
}

fn read_address(message: &Message<'_>) -> Option<(u32, Prefix)> {
    let mut address = None;
    for (kind, value) in attributes(message.body, 8) {
        match kind {
            // On a point-to-point link IFA_ADDRESS is the peer's address.
            IFA_LOCAL => address = read_ip(value),
            IFA_ADDRESS if address.is_none() => address = read_ip(value),
            _ => {}
        }
    }
    Some((
        u32_at(message.body, 4)?,
        Prefix {
            address: address?,
            length: *message.body.get(1)?,
        },
    ))
}

fn route_request(kind: u16, flags: u16, route: &Route) -> Messages {
    let (scope, protocol, target) = match (kind, route.to.address) {
        (RTM_DELROUTE, _) => (RT_SCOPE_NOWHERE, RTPROT_UNSPEC, RTN_UNSPEC),
        (_, IpAddr::V4(_)) => (RT_SCOPE_LINK, RTPROT_STATIC, RTN_UNICAST),
        (_, IpAddr::V6(_)) => (RT_SCOPE_UNIVERSE, RTPROT_STATIC, RTN_UNICAST),
    };
    let mut request = Messages::one(kind, flags, &route_header(route.to, scope, protocol, target));
    request.attribute(RTA_DST, &octets(route.to.network().address));
    if let Some(source) = route.source {
        request.attribute(RTA_PREFSRC, &octets(source));
    }
    if let Some(metric) = route.metric {
        request.attribute(RTA_PRIORITY, &metric.to_ne_bytes());
    }
    request
}

/// `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope, type, flags.
fn route_header(to: Prefix, scope: u8, protocol: u8, target: u8) -> [u8; 12] {
    [
        family(to.address),
        to.length,
        0,
        0,
        RT_TABLE_MAIN,
        protocol,
        scope,
        target,
        0,
        0,
        0,
        0,
    ]
}

fn read_route(message: &Message<'_>, ipv4: bool) -> Option<(u32, Prefix, Option<u32>)> {
    let nowhere = if ipv4 {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    let mut to = Prefix {
        address: nowhere,
        length: *message.body.get(1)?,
    };
    let (mut index, mut metric) = (None, None);
    for (kind, value) in attributes(message.body, 12) {
        match kind {
            RTA_DST => to.address = read_ip(value)?,
            RTA_OIF => index = u32_at(value, 0),
            RTA_PRIORITY => metric = u32_at(value, 0),
            _ => {}
        }
    }
    Some((index?, to, metric))
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn read_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}
