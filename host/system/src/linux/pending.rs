//! What is still to be built.

use std::{sync::mpsc::Receiver, time::Duration};

use crate::{
    Error, Firewall, Network, Process,
    firewall::Sources,
    grant::{FirewallGrant, NetworkGrant, ProcessGrant},
    network::{IfName, Link, LinkChanges, Prefix, Route},
    process::{Kept, Output},
};

#[derive(Debug)]
pub(crate) struct Pending;

fn no<T>() -> Result<T, Error> {
    Err(Error::Kernel {
        what: "this call".into(),
        errno: None,
        source_text: "is still to be built".into(),
    })
}

impl Network for Pending {
    fn link(&self, _: &IfName) -> Result<Option<Link>, Error> {
        no()
    }
    fn link_by_index(&self, _: u32) -> Result<Option<Link>, Error> {
        no()
    }
    fn bridge(&self, _: &NetworkGrant, _: Option<&IfName>) -> Result<Link, Error> {
        no()
    }
    fn change(&self, _: &NetworkGrant, _: u32, _: &LinkChanges) -> Result<(), Error> {
        no()
    }
    fn add_address(&self, _: &NetworkGrant, _: u32, _: Prefix) -> Result<(), Error> {
        no()
    }
    fn remove_address(&self, _: &NetworkGrant, _: u32, _: Prefix) -> Result<(), Error> {
        no()
    }
    fn add_route(&self, _: &NetworkGrant, _: u32, _: &Route) -> Result<(), Error> {
        no()
    }
    fn remove_route(&self, _: &NetworkGrant, _: u32, _: &Route) -> Result<(), Error> {
        no()
    }
    fn appearances(&self) -> Result<Receiver<Option<IfName>>, Error> {
        no()
    }
}

impl Firewall for Pending {
    fn restrict(&self, _: &FirewallGrant, _: &IfName, _: &Sources) -> Result<(), Error> {
        no()
    }
    fn lift(&self, _: &FirewallGrant, _: &IfName) -> Result<(), Error> {
        no()
    }
}

impl Process for Pending {
    fn run(&self, _: &ProcessGrant, _: &str, _: &[String], _: &str, _: Duration) -> Result<Output, Error> {
        no()
    }
    fn start(&self, _: &ProcessGrant, _: &str, _: &[String], _: &str) -> Result<Kept, Error> {
        no()
    }
    fn running(&self, _: &Kept) -> bool {
        false
    }
    fn end(&self, _: &Kept, _: Duration) -> Result<(), Error> {
        no()
    }
    fn find(&self, _: &str) -> Result<Vec<Kept>, Error> {
        no()
    }
}
