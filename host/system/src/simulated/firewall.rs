//! Firewall of the simulated host.

use std::sync::Arc;

use super::{Operation, SimHost};
use crate::{
    Error, Firewall,
    firewall::{Sources, rules::Rules},
    grant::FirewallGrant,
    network::{IfName, refusal},
};

#[derive(Debug)]
pub(crate) struct SimulatedFirewall(pub Arc<SimHost>);

impl Firewall for SimulatedFirewall {
    fn restrict(&self, _: &FirewallGrant, link: &IfName, sources: &Sources) -> Result<(), Error> {
        let mut world = self.0.enter(Operation::Restrict)?;
        Rules::of(sources)?;
        world.link_named(link).ok_or_else(|| refusal::gone(link))?;
        world.rules.insert(link.clone(), sources.clone());
        Ok(())
    }

    fn lift(&self, _: &FirewallGrant, link: &IfName) -> Result<(), Error> {
        self.0.enter(Operation::Lift)?.rules.remove(link);
        Ok(())
    }
}
