//! `network`: the device's own link, and the bridges of the grant.

use std::sync::Arc;

use wasmtime::component::Resource;
use xenplug_system::{
    Error, Network,
    network::{IfName, Link, LinkChanges, Mac, Prefix, Route},
};

use super::parse;
use crate::{
    bindings::xen::hotplug::network,
    call_error::CallError,
    event::Event,
    handles::{GrantedBridge, OwnLink},
    resource::{self, present},
};

fn facts(network: &dyn Network, link: Link) -> Result<network::LinkFacts, Error> {
    let bridge = match link.master {
        Some(index) => network.link_by_index(index)?.map(|bridge| bridge.name.to_string()),
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
        self.count_call()?;
        let name = parse::<IfName>("netdev", &netdev)?;
        let grant = self.context.access().network()?;
        let address = self.context.platform.network.address_of(grant, &name)?;
        Ok(address.to_string())
    }
}

impl network::HostVif for Event {
    fn find(&mut self) -> Result<Resource<OwnLink>, CallError> {
        self.count_call()?;
        let network = Arc::clone(&self.context.platform.network);
        let name = self.subject()?.device.instance().link();
        let link = match name.parse::<IfName>() {
            Ok(name) => network.link(&name)?,
            Err(_) => None,
        };
        let link = link.ok_or_else(|| Error::NotFound(format!("{name}: there is no such interface")))?;
        Ok(self.table.push(OwnLink {
            index: link.index,
            found: Some(link),
        })?)
    }

    fn facts(&mut self, this: Resource<OwnLink>) -> Result<network::LinkFacts, CallError> {
        self.count_call()?;
        let index = self.table.get(&this)?.index;
        let network = &*self.context.platform.network;
        Ok(facts(network, present(network, index)?)?)
    }

    fn configure(
        &mut self,
        this: Resource<OwnLink>,
        changes: network::LinkChanges,
        bridge: Option<Resource<GrantedBridge>>,
    ) -> Result<(), CallError> {
        self.count_call()?;
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
            None => present(&*context.platform.network, index)?,
        };
        let resources = self.resources()?;
        Ok(resource::Link::acquire(resources, context.access(), before, &changes)?)
    }

    fn add_address(&mut self, this: Resource<OwnLink>, address: String) -> Result<(), CallError> {
        self.count_call()?;
        let context = Arc::clone(&self.context);
        let index = self.table.get(&this)?.index;
        let address = parse::<Prefix>("ip", &address)?;
        let resources = self.resources()?;
        Ok(resource::Address::acquire(resources, context.access(), index, address)?)
    }

    fn add_route(&mut self, this: Resource<OwnLink>, route: network::Route) -> Result<(), CallError> {
        self.count_call()?;
        let context = Arc::clone(&self.context);
        let index = self.table.get(&this)?.index;
        let route = Route {
            to: parse::<Prefix>("ip", &route.to)?,
            source: route.source.map(|source| parse("ip", &source)).transpose()?,
            metric: route.metric,
        };
        let resources = self.resources()?;
        Ok(resource::Route::acquire(resources, context.access(), index, route)?)
    }

    fn proxy_arp(&mut self, this: Resource<OwnLink>) -> Result<(), CallError> {
        self.count_call()?;
        let context = Arc::clone(&self.context);
        let index = self.table.get(&this)?.index;
        let resources = self.resources()?;
        Ok(resource::ProxyArp::acquire(resources, context.access(), index)?)
    }

    fn drop(&mut self, this: Resource<OwnLink>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl network::HostBridge for Event {
    fn find(&mut self, name: Option<String>) -> Result<Resource<GrantedBridge>, CallError> {
        self.count_call()?;
        let name = name.map(|name| parse::<IfName>("bridge", &name)).transpose()?;
        let grant = self.context.access().network()?;
        let link = self.context.platform.network.bridge(grant, name.as_ref())?;
        Ok(self.table.push(GrantedBridge(link))?)
    }

    fn facts(&mut self, this: Resource<GrantedBridge>) -> Result<network::LinkFacts, CallError> {
        self.count_call()?;
        let found = self.table.get(&this)?.0.clone();
        Ok(facts(&*self.context.platform.network, found)?)
    }

    fn drop(&mut self, this: Resource<GrantedBridge>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
