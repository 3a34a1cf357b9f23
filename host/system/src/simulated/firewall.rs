//! What links of the simulated machine may send.

use std::sync::Arc;

use super::{Machine, Operation};
use crate::{Error, Firewall, firewall::Sources, grant::FirewallGrant, network::IfName};

#[derive(Debug)]
pub(super) struct SimulatedFirewall(pub Arc<Machine>);

impl Firewall for SimulatedFirewall {
    fn restrict(&self, _: &FirewallGrant, link: &IfName, sources: &Sources) -> Result<(), Error> {
        self.0
            .enter(Operation::Restrict)?
            .rules
            .insert(link.clone(), sources.clone());
        Ok(())
    }

    fn lift(&self, _: &FirewallGrant, link: &IfName) -> Result<(), Error> {
        self.0.enter(Operation::Lift)?.rules.remove(link);
        Ok(())
    }
}
