//! Network of a guest, from which a test sends packets through the guest's vif.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Device, Namespace, TestHost};

const PORT: u16 = 5000;
const GUEST_MAC: &str = "00:16:3e:01:02:03";

/// Network of a guest, with its vif and the addresses that it uses, allowed or not.
#[derive(Debug)]
pub struct Guest<'a> {
    host: &'a TestHost,
    network: Namespace,
}

impl<'a> Guest<'a> {
    /// Moves a vif into a new guest network, and adds these addresses to it.
    pub fn of(host: &'a TestHost, vif: &Device, addresses: &[&str]) -> Result<Self> {
        let network = with_vif(host.namespace(), vif)?;
        for address in addresses {
            network.ip(&format!("address add {address} dev {} nodad", vif.guest_link()))?;
        }
        Ok(Self { host, network })
    }

    /// Returns true if a datagram from the guest arrives at an address of the host, within 10 attempts.
    pub fn reaches(&self, from: &str, to: &str) -> Result<bool> {
        arrives(
            &self.network,
            SocketAddr::new(from.parse()?, 0),
            self.host.namespace(),
            SocketAddr::new(to.parse()?, PORT),
        )
    }
}

/// Creates a network for a guest, and moves its vif there.
pub fn with_vif(host: &Namespace, vif: &Device) -> Result<Namespace> {
    let network = Namespace::new()?;
    let link = vif.guest_link();
    host.give(&link, &network)?;
    network.ip(&format!("link set {link} address {GUEST_MAC} up"))?;
    Ok(network)
}

/// Returns true if a datagram from an address in one network arrives at an address in another.
pub fn arrives(here: &Namespace, from: SocketAddr, there: &Namespace, to: SocketAddr) -> Result<bool> {
    let receiver = bound(there, to)?;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    let sender = bound(here, from)?;
    // The first ones may be lost during neighbour discovery.
    for _ in 0..10 {
        match sender.send_to(b"hello", to) {
            // Neighbour discovery has failed: the datagrams before were lost.
            Err(error) if error.kind() == io::ErrorKind::HostUnreachable => {}
            sent => {
                sent?;
            }
        }
        match receiver.recv_from(&mut [0; 16]) {
            Ok((_, sender)) if sender.ip() == from.ip() => return Ok(true),
            Ok(_) => {}
            // A call with a timeout fails with EINTR after a stopped process continues (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("receiving"),
        }
    }
    Ok(false)
}

/// Binds a socket to an address in a network.
fn bound(network: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match network.within(|| UdpSocket::bind(address))? {
            // A program that another thread starts inherits the last socket at this address until it executes.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(Duration::from_millis(5));
            }
            socket => return socket.with_context(|| format!("binding to {address}")),
        }
    }
}
