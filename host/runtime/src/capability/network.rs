//! `network`: the device's own link, and the bridges of the grant.

use std::sync::Arc;

use wasmtime::component::Resource;
use xenplug_system::{
    Error, Network,
    grant::NetworkGrant,
    network::{IfName, Link, LinkChanges, Mac, Prefix, Route},
};

use super::CallError;
use crate::{
    Effect,
    bindings::xen::hotplug::network,
    event::{Context, Event},
};

/// The device's own link.
pub struct OwnLink {
    pub(super) index: u32,
    /// As it was found, until something is changed.
    found: Option<Link>,
}

/// A bridge within the grant, as it was found.
pub struct GrantedBridge(Link);

fn grant(context: &Context) -> Result<&NetworkGrant, CallError> {
    // The interface is linked only when it is granted.
    context
        .grants
        .network
        .as_ref()
        .ok_or_else(|| CallError::denied("network is not granted"))
}

/// The link of that number, or an error that it has gone.
pub(super) fn present(machine: &dyn Network, index: u32) -> Result<Link, Error> {
    machine
        .link_by_index(index)?
        .ok_or_else(|| Error::NotFound(format!("interface {index} has gone")))
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(key: &str, text: &str) -> Result<T, CallError> {
    text.parse()
        .map_err(|error: T::Err| CallError::invalid(key, error.to_string()))
}

fn facts(machine: &dyn Network, link: Link) -> Result<network::LinkFacts, Error> {
    let bridge = match link.master {
        Some(index) => machine.link_by_index(index)?.map(|bridge| bridge.name.to_string()),
        None => None,
    };
    Ok(network::LinkFacts {
        name: link.name.to_string(),
        mtu: link.mtu,
        mac: link.mac.to_string(),
        up: link.up,
        bridge,
    })
}

impl network::Host for Event {
    fn address_of(&mut self, netdev: String) -> Result<String, CallError> {
        self.call()?;
        let name = parse::<IfName>("netdev", &netdev)?;
        let address = self.context.system.network.address_of(grant(&self.context)?, &name)?;
        Ok(address.to_string())
    }
}

impl network::HostVif for Event {
    fn find(&mut self) -> Result<Resource<OwnLink>, CallError> {
        self.call()?;
        let machine = Arc::clone(&self.context.system.network);
        let name = self.subject()?.device.part().link();
        let link = match name.parse::<IfName>() {
            Ok(name) => machine.link(&name)?,
            Err(_) => None,
        };
        let link = link.ok_or_else(|| Error::NotFound(format!("{name}: there is no such interface")))?;
        Ok(self.table.push(OwnLink {
            index: link.index,
            found: Some(link),
        })?)
    }

    fn facts(&mut self, this: Resource<OwnLink>) -> Result<network::LinkFacts, CallError> {
        self.call()?;
        let index = self.table.get(&this)?.index;
        let machine = &*self.context.system.network;
        Ok(facts(machine, present(machine, index)?)?)
    }

    fn configure(
        &mut self,
        this: Resource<OwnLink>,
        changes: network::LinkChanges,
        bridge: Option<Resource<GrantedBridge>>,
    ) -> Result<(), CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let index = self.table.get(&this)?.index;
        let master = match bridge {
            Some(bridge) => Some(Some(self.table.get(&bridge)?.0.index)),
            None => None,
        };
        let changes = LinkChanges {
            flush: changes.flush_addresses,
            mac: changes.mac.map(|mac| parse::<Mac>("mac", &mac)).transpose()?,
            mtu: changes.mtu,
            name: changes.name.map(|name| parse::<IfName>("vifname", &name)).transpose()?,
            master,
            up: changes.up,
        };
        let before = match self.table.get_mut(&this)?.found.take() {
            Some(found) => found,
            None => present(&*context.system.network, index)?,
        };
        let effect = Effect::Link {
            index,
            name: before.name.clone(),
            undo: undo(&changes, &before),
        };
        let grant = grant(&context)?;
        self.subject()?.resources.acquire(effect.clone(), || {
            context.system.network.change(grant, index, &changes)?;
            Ok((effect, ()))
        })?;
        Ok(())
    }

    fn add_address(&mut self, this: Resource<OwnLink>, address: String) -> Result<(), CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let index = self.table.get(&this)?.index;
        let address = parse::<Prefix>("ip", &address)?;
        let effect = Effect::Address { index, address };
        let grant = grant(&context)?;
        self.subject()?.resources.acquire(effect.clone(), || {
            context.system.network.add_address(grant, index, address)?;
            Ok((effect, ()))
        })?;
        Ok(())
    }

    fn add_route(&mut self, this: Resource<OwnLink>, route: network::Route) -> Result<(), CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let index = self.table.get(&this)?.index;
        let route = Route {
            to: parse::<Prefix>("ip", &route.to)?,
            source: route.source.map(|source| parse("ip", &source)).transpose()?,
            metric: route.metric,
        };
        let effect = Effect::Route {
            index,
            route: route.clone(),
        };
        let grant = grant(&context)?;
        self.subject()?.resources.acquire(effect.clone(), || {
            context.system.network.add_route(grant, index, &route)?;
            Ok((effect, ()))
        })?;
        Ok(())
    }

    fn proxy_arp(&mut self, this: Resource<OwnLink>) -> Result<(), CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let index = self.table.get(&this)?.index;
        let grant = grant(&context)?;
        let effect = Effect::ProxyArp { index };
        self.subject()?.resources.acquire(effect.clone(), || {
            context.system.network.set_proxy_arp(grant, index, true)?;
            Ok((effect, ()))
        })?;
        Ok(())
    }

    fn drop(&mut self, this: Resource<OwnLink>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// What puts a link back to how it was before. Addresses that were flushed are not put back: the kernel made them for a
/// link that was not yet a port.
fn undo(changes: &LinkChanges, before: &Link) -> LinkChanges {
    LinkChanges {
        flush: false,
        mac: changes.mac.map(|_| before.mac),
        mtu: changes.mtu.map(|_| before.mtu),
        name: changes.name.as_ref().map(|_| before.name.clone()),
        master: changes.master.map(|_| before.master),
        up: changes.up.map(|_| before.up),
    }
}

impl network::HostBridge for Event {
    fn find(&mut self, name: Option<String>) -> Result<Resource<GrantedBridge>, CallError> {
        self.call()?;
        let name = name.map(|name| parse::<IfName>("bridge", &name)).transpose()?;
        let link = self
            .context
            .system
            .network
            .bridge(grant(&self.context)?, name.as_ref())?;
        Ok(self.table.push(GrantedBridge(link))?)
    }

    fn facts(&mut self, this: Resource<GrantedBridge>) -> Result<network::LinkFacts, CallError> {
        self.call()?;
        let found = self.table.get(&this)?.0.clone();
        Ok(facts(&*self.context.system.network, found)?)
    }

    fn drop(&mut self, this: Resource<GrantedBridge>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
