//! `firewall`: what the device's own link may send.

use std::sync::Arc;

use wasmtime::component::Resource;
use xenplug_system::{
    firewall::Sources,
    network::{Mac, Prefix},
};

use super::{
    CallError,
    network::{OwnLink, present},
};
use crate::{Effect, bindings::xen::hotplug::firewall, event::Event};

impl firewall::Host for Event {
    fn restrict(&mut self, vif: Resource<OwnLink>, allowed: firewall::Sources) -> Result<(), CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let index = self.table.get(&vif)?.index;
        let sources = Sources {
            mac: allowed
                .mac
                .map(|mac| {
                    mac.parse::<Mac>()
                        .map_err(|error| CallError::invalid("mac", error.to_string()))
                })
                .transpose()?,
            ipv4: prefixes(allowed.ipv4, |prefix| prefix.address.is_ipv4())?,
            ipv6: prefixes(allowed.ipv6, |prefix| prefix.address.is_ipv6())?,
            dhcp: allowed.dhcp,
        };
        let link = present(&*context.system.network, index)?.name;
        let grant = context
            .grants
            .firewall
            .as_ref()
            .ok_or_else(|| CallError::denied("firewall is not granted"))?;
        let effect = Effect::Firewall { link: link.clone() };
        self.subject()?.resources.acquire(effect.clone(), || {
            context.system.firewall.restrict(grant, &link, &sources)?;
            Ok((effect, ()))
        })?;
        Ok(())
    }
}

fn prefixes(texts: Vec<String>, of_family: fn(&Prefix) -> bool) -> Result<Vec<Prefix>, CallError> {
    texts
        .into_iter()
        .map(|text| {
            let prefix: Prefix = text
                .parse()
                .map_err(|error| CallError::invalid("ip", format!("{error}")))?;
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
