//! The network of a guest, to send packets through its card.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Device, Machine, Namespace};

const PORT: u16 = 5000;
const GUEST_MAC: &str = "00:16:3e:01:02:03";

/// A guest's network, with its card and the addresses it has taken, allowed or not.
#[derive(Debug)]
pub struct Guest<'a> {
    machine: &'a Machine,
    network: Namespace,
}

impl<'a> Guest<'a> {
    /// Gives a guest its card, which takes these addresses.
    pub fn of(machine: &'a Machine, card: &Device, addresses: &[&str]) -> Result<Self> {
        let network = Namespace::new()?;
        let link = card.guest_link();
        machine.namespace().give(&link, &network)?;
        network.ip(&format!("link set {link} address {GUEST_MAC} up"))?;
        for address in addresses {
            network.ip(&format!("address add {address} dev {link} nodad"))?;
        }
        Ok(Self { machine, network })
    }

    /// Whether a datagram that the guest sends from an address arrives at the bridge's address.
    pub fn reaches(&self, from: &str, to: &str) -> Result<bool> {
        let (from, to): (IpAddr, IpAddr) = (from.parse()?, to.parse()?);
        let there = self
            .machine
            .namespace()
            .within(|| UdpSocket::bind(SocketAddr::new(to, PORT)))??;
        there.set_read_timeout(Some(Duration::from_millis(100)))?;
        let here = self.network.within(|| UdpSocket::bind(SocketAddr::new(from, 0)))??;
        // The first ones may be lost while the neighbour is asked for.
        for _ in 0..10 {
            here.send_to(b"hello", SocketAddr::new(to, PORT))?;
            match there.recv_from(&mut [0; 16]) {
                Ok((_, sender)) if sender.ip() == from => return Ok(true),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("receiving"),
            }
        }
        Ok(false)
    }
}
