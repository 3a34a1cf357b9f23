//! `firewall`: the sources from which the device's own link may send.

use std::sync::Arc;

use wasmtime::component::Resource;
use xenplug_system::{
    firewall::Sources,
    network::{Mac, Prefix},
};

use super::parse;
use crate::{
    bindings::xen::hotplug::firewall, call_error::CallError, event::Event, handles::OwnLink, resource::Firewall,
};

impl firewall::Host for Event {
    fn restrict(&mut self, vif: Resource<OwnLink>, allowed: firewall::Sources) -> Result<(), CallError> {
        self.count_call()?;
        let context = Arc::clone(&self.context);
        let index = self.table.get(&vif)?.index;
        let sources = Sources {
            mac: allowed.mac.map(|mac| parse::<Mac>("mac", &mac)).transpose()?,
            ipv4: prefixes(allowed.ipv4, |prefix| prefix.address.is_ipv4())?,
            ipv6: prefixes(allowed.ipv6, |prefix| prefix.address.is_ipv6())?,
            dhcp: allowed.dhcp,
        };
        Ok(Firewall::acquire(self.resources()?, context.access(), index, &sources)?)
    }
}

fn prefixes(texts: Vec<String>, of_family: fn(&Prefix) -> bool) -> Result<Vec<Prefix>, CallError> {
    texts
        .into_iter()
        .map(|text| {
            let prefix = parse::<Prefix>("ip", &text)?;
            if of_family(&prefix) {
                Ok(prefix)
            } else {
                Err(CallError::invalid(
                    "ip",
                    format!("{prefix} is of the other address family"),
                ))
            }
        })
        .collect()
}
