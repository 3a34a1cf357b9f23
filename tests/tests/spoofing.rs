//! A guest sends from the addresses that it was given, and from no other: shown with packets, IPv4 and IPv6.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::rig::{Device, Machine, Namespace, Nodes, Vif};

const PORT: u16 = 5000;
const GUEST_MAC: &str = "00:16:3e:01:02:03";

/// A guest's network, with its card and the addresses it has taken, allowed or not.
struct Guest<'a> {
    machine: &'a Machine,
    network: Namespace,
}

impl<'a> Guest<'a> {
    fn of(machine: &'a Machine, card: &Device, addresses: &[&str]) -> Result<Self> {
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
    fn reaches(&self, from: &str, to: &str) -> Result<bool> {
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

/// A machine whose bridge has addresses, and a connected card.
fn connected(nodes: &Nodes) -> Result<(Machine, Device)> {
    let mut machine = Machine::with_daemon()?;
    for address in ["10.0.0.1/24", "fd00::1/64"] {
        machine
            .namespace()
            .ip(&format!("address add {address} dev xenbr0 nodad"))?;
    }
    let card = Device::card(3, 0);
    machine.attach(&card, nodes)?;
    machine.expect_connected(&card)?;
    Ok((machine, card))
}

#[test]
fn a_guest_without_addresses_may_send_from_any() -> Result<()> {
    let (mut machine, card) = connected(&Vif::on("xenbr0"))?;
    let guest = Guest::of(&machine, &card, &["10.0.0.2/24", "fd00::2/64"])?;
    ensure!(guest.reaches("10.0.0.2", "10.0.0.1")?);
    ensure!(guest.reaches("fd00::2", "fd00::1")?);
    drop(guest);
    machine.end_guest(3, &[card])
}

#[test]
fn a_guest_sends_from_its_addresses_and_from_no_other() -> Result<()> {
    let (mut machine, card) = connected(&Vif::on("xenbr0").with("ip", "10.0.0.2 fd00::2"))?;
    let guest = Guest::of(
        &machine,
        &card,
        &["10.0.0.2/24", "10.0.0.9/24", "fd00::2/64", "fd00::9/64"],
    )?;
    ensure!(
        guest.reaches("10.0.0.2", "10.0.0.1")?,
        "its own IPv4 address is blocked"
    );
    ensure!(guest.reaches("fd00::2", "fd00::1")?, "its own IPv6 address is blocked");
    ensure!(
        !guest.reaches("10.0.0.9", "10.0.0.1")?,
        "it can send from another IPv4 address"
    );
    ensure!(
        !guest.reaches("fd00::9", "fd00::1")?,
        "it can send from another IPv6 address"
    );
    drop(guest);
    machine.end_guest(3, &[card])
}

#[test]
fn a_guest_with_an_ipv4_address_alone_sends_no_ipv6() -> Result<()> {
    let (mut machine, card) = connected(&Vif::on("xenbr0").with("ip", "10.0.0.2"))?;
    let guest = Guest::of(&machine, &card, &["10.0.0.2/24", "fd00::2/64"])?;
    ensure!(guest.reaches("10.0.0.2", "10.0.0.1")?);
    ensure!(!guest.reaches("fd00::2", "fd00::1")?);
    drop(guest);
    machine.end_guest(3, &[card])
}

#[test]
fn the_rules_of_a_card_go_with_it() -> Result<()> {
    let mut machine = Machine::with_daemon()?;
    let baseline = machine.baseline()?;
    let card = Device::card(3, 0);
    machine.attach(&card, &Vif::on("xenbr0").with("ip", "10.0.0.2"))?;
    machine.expect_connected(&card)?;
    ensure!(machine.baseline()? != baseline, "there are no rules");
    machine.end_guest(3, &[card])?;
    baseline.assert_same(&machine)
}
