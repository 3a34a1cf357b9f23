//! Links and bridges of the simulated host.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
};

use super::{Operation, SimHost, SimLink, World};
use crate::{
    Error, Network,
    grant::NetworkGrant,
    network::{IfName, Link, LinkChanges, Mac, Prefix, Route, refusal},
};

/// Range of MTUs of a virtual Ethernet device (drivers/net/veth.c, xen-netback's interface.c).
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;

#[derive(Debug)]
pub(crate) struct SimulatedNetwork(pub Arc<SimHost>);

impl Network for SimulatedNetwork {
    fn exists(&self, name: &IfName) -> bool {
        self.0.world().link_named(name).is_some()
    }

    fn link(&self, name: &IfName) -> Result<Option<Link>, Error> {
        let world = self.0.enter(Operation::Link)?;
        Ok(world.link_named(name).map(|entry| entry.link.clone()))
    }

    fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        let world = self.0.enter(Operation::LinkByIndex)?;
        Ok(world.links.get(&index).map(|entry| entry.link.clone()))
    }

    fn bridge(&self, grant: &NetworkGrant, name: Option<&IfName>) -> Result<Link, Error> {
        let world = self.0.enter(Operation::Bridge)?;
        if let Some(name) = name {
            refusal::permit_bridge(grant, name)?;
            let entry = world
                .link_named(name)
                .ok_or_else(|| refusal::missing_bridge(Some(name)))?;
            return if entry.link.bridge {
                Ok(entry.link.clone())
            } else {
                Err(refusal::no_bridge(name))
            };
        }
        let mut links = world.links.values().map(|entry| &entry.link);
        let first = links.find(|link| link.bridge && grant.permits(link.name.as_str()));
        first.cloned().ok_or_else(|| refusal::missing_bridge(None))
    }

    fn change(&self, grant: &NetworkGrant, index: u32, changes: &LinkChanges) -> Result<(), Error> {
        let mut world = self.0.enter(Operation::Change)?;
        let before = world.existing(index)?.link.clone();
        if let Some(Some(master)) = changes.master.filter(|master| *master != before.master) {
            let bridge = world.existing(master)?;
            refusal::permit_bridge(grant, &bridge.link.name)?;
            if !bridge.link.bridge {
                return Err(refusal::no_bridge(&bridge.link.name));
            }
        }
        let taken = |new: &&IfName| **new != before.name && world.link_named(new).is_some();
        let name_taken = changes
            .name
            .as_ref()
            .filter(taken)
            .map(|new| refusal::name_taken(&before.name, new));
        let entry = world.existing(index)?;
        if changes.flush {
            entry.addresses.clear();
        }
        if let Some(mac) = changes.mac {
            if mac.0[0] & 1 != 0 || mac == Mac([0; 6]) {
                return Err(refusal::mac(&before.name, mac));
            }
            entry.link.mac = mac;
        }
        if let Some(mtu) = changes.mtu {
            if !MTU.contains(&mtu) {
                return Err(refusal::mtu(&before.name, mtu));
            }
            entry.link.mtu = mtu;
        }
        if let Some(name) = changes.name.as_ref().filter(|name| **name != before.name) {
            if let Some(error) = name_taken {
                return Err(error);
            }
            entry.link.name = name.clone();
        }
        if let Some(master) = changes.master {
            entry.link.master = master;
        }
        entry.link.up = changes.up.unwrap_or(entry.link.up);
        let name = entry.link.name.clone();
        if name != before.name {
            world.notify(&name);
        }
        Ok(())
    }

    fn add_address(&self, _: &NetworkGrant, index: u32, address: Prefix) -> Result<(), Error> {
        let mut world = self.0.enter(Operation::AddAddress)?;
        let entry = world.existing(index)?;
        if !entry.addresses.contains(&address) {
            entry.addresses.push(address);
        }
        Ok(())
    }

    fn remove_address(&self, _: &NetworkGrant, index: u32, address: Prefix) -> Result<(), Error> {
        let mut world = self.0.enter(Operation::RemoveAddress)?;
        if let Some(entry) = world.links.get_mut(&index) {
            entry.addresses.retain(|existing| *existing != address);
        }
        Ok(())
    }

    fn add_route(&self, grant: &NetworkGrant, index: u32, route: &Route) -> Result<(), Error> {
        let mut world = self.0.enter(Operation::AddRoute)?;
        refusal::permit_route(grant, route.to)?;
        let same = |existing: &Route| (existing.to.network(), existing.metric) == (route.to.network(), route.metric);
        let elsewhere = world
            .links
            .iter()
            .any(|(number, entry)| *number != index && entry.routes.iter().any(same));
        let entry = world.existing(index)?;
        if elsewhere {
            return Err(refusal::routed_elsewhere(&entry.link.name, route.to.network()));
        }
        if !entry.routes.iter().any(same) {
            entry.routes.push(route.clone());
        }
        Ok(())
    }

    fn remove_route(&self, _: &NetworkGrant, index: u32, route: &Route) -> Result<(), Error> {
        let mut world = self.0.enter(Operation::RemoveRoute)?;
        if let Some(entry) = world.links.get_mut(&index) {
            entry.routes.retain(|existing| existing != route);
        }
        Ok(())
    }

    fn set_proxy_arp(&self, _: &NetworkGrant, index: u32, on: bool) -> Result<(), Error> {
        let mut world = self.0.enter(Operation::SetProxyArp)?;
        world.existing(index)?.proxy_arp = on;
        Ok(())
    }

    fn address_of(&self, grant: &NetworkGrant, name: &IfName) -> Result<IpAddr, Error> {
        let world = self.0.enter(Operation::AddressOf)?;
        refusal::permit_uplink(grant, name)?;
        let entry = world.link_named(name).ok_or_else(|| refusal::missing_uplink(name))?;
        let mut addresses = entry.addresses.iter().map(|prefix| prefix.address);
        addresses.find(IpAddr::is_ipv4).ok_or_else(|| refusal::no_address(name))
    }

    fn appearances(&self) -> Result<Receiver<Option<IfName>>, Error> {
        let mut world = self.0.enter(Operation::Appearances)?;
        let (sender, receiver) = channel();
        world.watchers.push(sender);
        Ok(receiver)
    }
}

impl World {
    pub(super) fn add_link(&mut self, name: &IfName, bridge: bool) -> u32 {
        self.link_number += 1;
        let index = self.link_number;
        let [.., a, b] = index.to_be_bytes();
        let mac = Mac([0x02, 0, 0, 0, a, b]);
        let link = Link {
            index,
            name: name.clone(),
            mtu: 1500,
            mac,
            up: false,
            master: None,
            bridge,
        };
        self.links.insert(
            index,
            SimLink {
                link,
                addresses: Vec::new(),
                routes: Vec::new(),
                proxy_arp: false,
            },
        );
        self.notify(name);
        index
    }

    pub(super) fn remove_link(&mut self, name: &IfName) {
        let Some(index) = self.link_named(name).map(|entry| entry.link.index) else {
            return;
        };
        self.links.remove(&index);
        for entry in self.links.values_mut() {
            entry.link.master = entry.link.master.filter(|master| *master != index);
        }
    }

    pub(super) fn link_named(&self, name: &IfName) -> Option<&SimLink> {
        self.links.values().find(|entry| entry.link.name == *name)
    }

    fn existing(&mut self, index: u32) -> Result<&mut SimLink, Error> {
        self.links.get_mut(&index).ok_or_else(|| refusal::number_gone(index))
    }

    fn notify(&mut self, name: &IfName) {
        self.watchers.retain(|watcher| watcher.send(Some(name.clone())).is_ok());
    }
}
