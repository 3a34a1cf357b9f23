//! The network of a guest, to send packets through its vif.

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

/// A guest's network, with its vif and the addresses it has taken, allowed or not.
#[derive(Debug)]
pub struct Guest<'a> {
    machine: &'a TestHost,
    network: Namespace,
}

impl<'a> Guest<'a> {
    /// Gives a guest its vif, which takes these addresses.
    pub fn of(machine: &'a TestHost, vif: &Device, addresses: &[&str]) -> Result<Self> {
        let network = with_vif(machine.namespace(), vif)?;
        for address in addresses {
            network.ip(&format!("address add {address} dev {} nodad", vif.guest_link()))?;
        }
        Ok(Self { machine, network })
    }

    /// Whether a datagram that the guest sends from an address arrives at the bridge's address.
    pub fn reaches(&self, from: &str, to: &str) -> Result<bool> {
        arrives(
            &self.network,
            SocketAddr::new(from.parse()?, 0),
            self.machine.namespace(),
            SocketAddr::new(to.parse()?, PORT),
        )
    }
}

/// A network of a guest's own, into which its vif is moved.
pub fn with_vif(machine: &Namespace, vif: &Device) -> Result<Namespace> {
    let network = Namespace::new()?;
    let link = vif.guest_link();
    machine.give(&link, &network)?;
    network.ip(&format!("link set {link} address {GUEST_MAC} up"))?;
    Ok(network)
}

/// Whether a datagram that is sent from an address in one network arrives at another one's.
pub fn arrives(here: &Namespace, from: SocketAddr, there: &Namespace, to: SocketAddr) -> Result<bool> {
    let receiver = bound(there, to)?;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    let sender = bound(here, from)?;
    // The first ones may be lost while the neighbour is asked for.
    for _ in 0..10 {
        match sender.send_to(b"hello", to) {
            // Nobody answers for that neighbour: the datagrams before were lost.
            Err(error) if error.kind() == io::ErrorKind::HostUnreachable => {}
            sent => {
                sent?;
            }
        }
        match receiver.recv_from(&mut [0; 16]) {
            Ok((_, sender)) if sender.ip() == from.ip() => return Ok(true),
            Ok(_) => {}
            // With a time-out a call is not begun anew after the process was stopped and goes on (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("receiving"),
        }
    }
    Ok(false)
}

/// A socket at that address.
fn bound(network: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match network.within(|| UdpSocket::bind(address))? {
            // A program that another thread was starting may have the last one's socket until it has begun.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(Duration::from_millis(5));
            }
            socket => return socket.with_context(|| format!("binding to {address}")),
        }
    }
}
