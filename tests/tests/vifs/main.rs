//! Other vifs in dom0 than plain ones on a bridge: routed, behind NAT, emulated, and with parameters of the script
//! call. On the real xenstored and the real kernel, in a network namespace.

mod dhcp_hook;
mod hooks;
mod nat;
mod openvswitch;
mod route;
mod tap;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use xenplug_tests::harness::{Answer, Device, Guest, Nodes, TestHost, Vif, handlers};

/// Makes a dom0 with two uplinks, `eth0` and `eth1`, of which only the first has an IPv6 address.
fn host() -> Result<TestHost> {
    let host = TestHost::dom0_with(handlers::ROUTED)?;
    for (link, address) in [("eth0", "192.0.2.1/24"), ("eth1", "198.51.100.1/24")] {
        host.namespace()
            .ip(&format!("link add {link} type veth peer name world-{link}"))?;
        host.namespace().ip(&format!("address add {address} dev {link}"))?;
        host.namespace()
            .ip(&format!("address add 203.0.113.77/32 dev {link}"))?;
        host.namespace().ip(&format!("link set {link} up"))?;
    }
    host.namespace().ip("address add 2001:db8:ffff::1/64 dev eth0 nodad")?;
    Ok(host)
}

/// Returns the nodes of a vif with this script, and these nodes.
fn vif_of(script: &str, more: &[(&'static str, &str)]) -> Nodes {
    let nodes = Vif::on("xenbr0")
        .without("bridge")
        .with("script", format!("/etc/xen/scripts/{script}"));
    more.iter().fold(nodes, |nodes, (name, value)| nodes.with(name, *value))
}

/// Attaches a vif as `xl` does, and runs its script with these arguments.
fn attach(host: &mut TestHost, script: &str, vif: &Device, nodes: &Nodes, arguments: Value) -> Result<Answer> {
    host.attach(vif, nodes)?;
    host.expect_state(vif, "2")?;
    host.call_of(script, vif, "add", json!({ "parameters": arguments }))?
        .answer()
}

/// Removes a vif as its script does.
fn remove(host: &TestHost, script: &str, vif: &Device) -> Result<()> {
    host.call_of(script, vif, "remove", json!({}))?.answer()?.done()
}

/// Checks that packets from the guest's own address reach the router, and those from another do not. Removes the
/// guest's end of the link, and the link with it.
fn check_only_own_address_passes(host: &TestHost, vif: &Device, router: &str, own: &str, other: &str) -> Result<()> {
    let [first, second] = [own, other].map(|address| format!("{address} peer {router}/32"));
    let guest = Guest::of(host, vif, &[&first, &second])?;
    ensure!(guest.reaches(own, router)?, "no packet arrives");
    ensure!(!guest.reaches(other, router)?, "another's packet arrives");
    Ok(())
}
