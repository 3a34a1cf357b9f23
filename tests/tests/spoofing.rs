//! Packets of a guest, IPv4 and IPv6: only those from its own addresses pass.

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Device, Guest, Nodes, TestHost, Vif};

/// A host whose bridge has addresses, and a connected vif.
fn connected(nodes: &Nodes) -> Result<(TestHost, Device)> {
    let mut host = TestHost::with_daemon()?;
    host.namespace().ip("address add 10.0.0.1/24 dev xenbr0")?;
    host.namespace().ip("address add fd00::1/64 dev xenbr0 nodad")?;
    let vif = Device::vif(3, 0);
    host.attach(&vif, nodes)?;
    host.expect_connected(&vif)?;
    Ok((host, vif))
}

#[test]
fn guest_without_addresses_may_send_from_any() -> Result<()> {
    let (mut host, vif) = connected(&Vif::on("xenbr0"))?;
    let guest = Guest::of(&host, &vif, &["10.0.0.2/24", "fd00::2/64"])?;
    ensure!(guest.reaches("10.0.0.2", "10.0.0.1")?);
    ensure!(guest.reaches("fd00::2", "fd00::1")?);
    drop(guest);
    host.end_guest(3, &[vif])
}

#[test]
fn guest_sends_from_its_addresses_only() -> Result<()> {
    let (mut host, vif) = connected(&Vif::on("xenbr0").with("ip", "10.0.0.2 fd00::2"))?;
    let guest = Guest::of(&host, &vif, &["10.0.0.2/24", "10.0.0.9/24", "fd00::2/64", "fd00::9/64"])?;
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
    host.end_guest(3, &[vif])
}

#[test]
fn guest_with_only_an_ipv4_address_sends_no_ipv6() -> Result<()> {
    let (mut host, vif) = connected(&Vif::on("xenbr0").with("ip", "10.0.0.2"))?;
    let guest = Guest::of(&host, &vif, &["10.0.0.2/24", "fd00::2/64"])?;
    ensure!(guest.reaches("10.0.0.2", "10.0.0.1")?);
    ensure!(!guest.reaches("fd00::2", "fd00::1")?);
    drop(guest);
    host.end_guest(3, &[vif])
}

#[test]
fn firewall_rules_of_a_vif_are_removed_with_it() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let vif = Device::vif(3, 0);
    host.attach(&vif, &Vif::on("xenbr0").with("ip", "10.0.0.2"))?;
    host.expect_connected(&vif)?;
    ensure!(host.baseline()? != baseline, "there are no rules");
    host.end_guest(3, &[vif])?;
    baseline.assert_same(&host)
}
