//! The DHCP server of the simulated machine: what it offers, whatever its files are called.

use std::sync::Arc;

use super::{Operation, SimHost};
use crate::{
    Dhcp, Error,
    dhcp::{Lease, Server, text},
    grant::DhcpGrant,
};

#[derive(Debug)]
pub(super) struct SimulatedDhcp(pub Arc<SimHost>);

impl Dhcp for SimulatedDhcp {
    fn enter(&self, grant: &DhcpGrant, server: &Server, lease: &Lease) -> Result<(), Error> {
        let mut world = self.0.enter(Operation::Enter)?;
        grant.permit(server)?;
        text::check(lease)?;
        world.leases.retain(|other| other.host != lease.host);
        world.leases.push(lease.clone());
        Ok(())
    }

    fn strike(&self, grant: &DhcpGrant, server: &Server, lease: &Lease) -> Result<(), Error> {
        let mut world = self.0.enter(Operation::Strike)?;
        grant.permit(server)?;
        world.leases.retain(|other| other.host != lease.host);
        Ok(())
    }
}
