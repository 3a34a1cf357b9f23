//! Network cards in dom0 beyond the plain one on a bridge: routed, behind address translation, emulated, and with what
//! their scripts are told besides the store. On the real xenstored and the real kernel, in a network namespace.

mod hooks;
mod nat;
mod openvswitch;
mod route;
mod tap;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use xenplug_tests::harness::{Answer, Device, Guest, Nodes, TestHost, Vif, handlers};

/// A dom0 with two links to the world, `eth0` and `eth1`, of which only the first has an IPv6 address, too.
fn machine() -> Result<TestHost> {
    let machine = TestHost::dom0_with(handlers::ROUTED)?;
    for (link, address) in [("eth0", "192.0.2.1/24"), ("eth1", "198.51.100.1/24")] {
        machine
            .namespace()
            .ip(&format!("link add {link} type veth peer name world-{link}"))?;
        machine.namespace().ip(&format!("address add {address} dev {link}"))?;
        machine
            .namespace()
            .ip(&format!("address add 203.0.113.77/32 dev {link}"))?;
        machine.namespace().ip(&format!("link set {link} up"))?;
    }
    machine
        .namespace()
        .ip("address add 2001:db8:ffff::1/64 dev eth0 nodad")?;
    Ok(machine)
}

/// A card of a script, with these nodes besides.
fn card_of(script: &str, more: &[(&'static str, &str)]) -> Nodes {
    let nodes = Vif::on("xenbr0")
        .without("bridge")
        .with("script", format!("/etc/xen/scripts/{script}"));
    more.iter().fold(nodes, |nodes, (name, value)| nodes.with(name, *value))
}

/// Attaches a card as `xl` does, and runs its script, told these parameters.
fn plug(machine: &mut TestHost, script: &str, card: &Device, nodes: &Nodes, told: Value) -> Result<Answer> {
    machine.attach(card, nodes)?;
    machine.expect_state(card, "2")?;
    machine
        .call_of(script, card, "add", json!({ "parameters": told }))?
        .answer()
}

/// Takes a card down as its script does.
fn remove(machine: &TestHost, script: &str, card: &Device) -> Result<()> {
    machine.call_of(script, card, "remove", json!({}))?.answer()?.done()
}

/// Checks that packets of the guest's own address reach the router, and those of another do not. The link goes with the
/// guest's end of it.
fn sends_its_own_alone(machine: &TestHost, card: &Device, router: &str, own: &str, other: &str) -> Result<()> {
    let [first, second] = [own, other].map(|address| format!("{address} peer {router}/32"));
    let guest = Guest::of(machine, card, &[&first, &second])?;
    ensure!(guest.reaches(own, router)?, "no packet arrives");
    ensure!(!guest.reaches(other, router)?, "another's packet arrives");
    Ok(())
}
