//! Entries for guests in the configuration of a DHCP server: ISC's, as `/etc/xen/scripts/vif-nat` has it.

pub(crate) mod text;

use std::{net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    grant::DhcpGrant,
    network::{IfName, Mac},
    process::Command,
};

/// What a DHCP server reads, and what makes it read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its configuration: `dhcpd.conf`.
    pub configuration: PathBuf,
    /// The file with the links that it serves, in the form of a shell's variables: `/etc/default/isc-dhcp-server`.
    pub links: Option<PathBuf>,
    /// The program that restarts it when it is given the word `restart`: `/etc/init.d/isc-dhcp-server`.
    pub restart: Option<PathBuf>,
}

impl Server {
    /// The call that restarts it, if there is one.
    pub fn restarting(&self) -> Option<Command> {
        self.restart.clone().map(|program| Command {
            helper: "dhcp-server".to_owned(),
            program,
            arguments: vec!["restart".to_owned()],
        })
    }
}

/// What a guest is offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The entry's name, and the guest's: letters, digits and dashes.
    pub host: String,
    /// Whose it is.
    pub mac: Mac,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Its router's.
    pub router: Ipv4Addr,
    /// The link by which it asks.
    pub link: IfName,
}

/// The configuration of DHCP servers. What is written is read by the server once it is restarted.
pub trait Dhcp: Send + Sync {
    /// Enters a lease in the place of one with the same name.
    fn enter(&self, grant: &DhcpGrant, server: &Server, lease: &Lease) -> Result<(), Error>;

    /// Strikes a lease out. One that is not there is no error, nor is a file that has gone.
    fn strike(&self, grant: &DhcpGrant, server: &Server, lease: &Lease) -> Result<(), Error>;
}
