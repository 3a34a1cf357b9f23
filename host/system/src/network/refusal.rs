//! Errors of links, with the same text on Linux and on the simulated host.

use super::{IfName, Mac, Prefix};
use crate::{Error, grant::NetworkGrant};

pub(crate) fn permit_bridge(grant: &NetworkGrant, name: &IfName) -> Result<(), Error> {
    match grant.permits(name.as_str()) {
        true => Ok(()),
        false => Err(Error::Denied(format!("the bridge {name} is not granted"))),
    }
}

pub(crate) fn permit_route(grant: &NetworkGrant, to: Prefix) -> Result<(), Error> {
    match grant.permits_route(to) {
        true => Ok(()),
        false => Err(Error::Denied(format!("a route to {} is not granted", to.network()))),
    }
}

pub(crate) fn permit_uplink(grant: &NetworkGrant, name: &IfName) -> Result<(), Error> {
    match grant.permits_uplink(name.as_str()) {
        true => Ok(()),
        false => Err(Error::Denied(format!("the address of {name} is not granted"))),
    }
}

pub(crate) fn missing_uplink(name: &IfName) -> Error {
    Error::NotFound(format!("there is no network interface {name}"))
}

pub(crate) fn no_address(name: &IfName) -> Error {
    Error::NotFound(format!("{name} has no IPv4 address"))
}

pub(crate) fn missing_bridge(name: Option<&IfName>) -> Error {
    Error::NotFound(match name {
        Some(name) => format!("there is no bridge {name}"),
        None => "there is no bridge among those that are granted".into(),
    })
}

pub(crate) fn no_bridge(name: &IfName) -> Error {
    Error::Invalid {
        key: "bridge",
        cause: format!("{name} is not a bridge"),
    }
}

pub(crate) fn gone(name: &IfName) -> Error {
    Error::NotFound(format!("the network interface {name} is gone"))
}

pub(crate) fn number_gone(index: u32) -> Error {
    Error::NotFound(format!("the network interface with the number {index} is gone"))
}

pub(crate) fn mac(name: &IfName, mac: Mac) -> Error {
    Error::Invalid {
        key: "mac",
        cause: format!("{mac} cannot be the hardware address of {name}"),
    }
}

pub(crate) fn mtu(name: &IfName, mtu: u32) -> Error {
    Error::Invalid {
        key: "mtu",
        cause: format!("{mtu} is out of the range of {name}"),
    }
}

pub(crate) fn name_taken(name: &IfName, new: &IfName) -> Error {
    Error::Busy(format!("the name {new} for {name} is taken"))
}

pub(crate) fn routed_elsewhere(name: &IfName, to: Prefix) -> Error {
    Error::Busy(format!("there is another route to {to}, and so none through {name}"))
}
