//! `vif-nat`: vifs behind NAT.

use std::{fs, thread, time::Duration};

use anyhow::{Result, ensure};
use serde_json::json;
use xenplug_tests::harness::{Device, Locker, TestHost, handlers, install};

use crate::{host, plug, remove, sends_its_own_alone, vif_of};

#[test]
fn nat_vif_addresses_derive_from_its_domid() -> Result<()> {
    let mut host = host()?;
    for (domid, index, handle, guest, router) in [
        (3, 0, "0", "10.0.3.1", "10.0.3.128"),
        (3, 1, "1", "10.0.3.2", "10.0.3.129"),
        (700, 0, "0", "10.2.188.1", "10.2.188.128"),
    ] {
        let vif = Device::card(domid, index);
        let nodes = vif_of("vif-nat", &[("handle", handle)]);
        plug(&mut host, "vif-nat", &vif, &nodes, json!({}))?.done()?;
        host.expect_connected(&vif)?;
        let network = host.namespace();
        assert_eq!(network.addresses(&vif.link())?, [format!("{router}/32")]);
        assert_eq!(network.routes(&vif.link())?, [format!("{guest} src {router}")]);
        assert_eq!(network.setting(&vif.link(), "proxy_arp")?, "1");
    }
    let vif = Device::card(3, 0);
    host.call_of("vif-nat", &vif, "add", json!({}))?.answer()?.done()?;
    remove(&host, "vif-nat", &vif)?;
    let network = host.namespace();
    assert_eq!(network.addresses("vif3.0")?, [""; 0]);
    assert_eq!(network.routes("vif3.0")?, [""; 0]);
    assert_eq!(network.setting("vif3.0", "proxy_arp")?, "0");
    Ok(())
}

#[test]
fn nat_guest_sends_only_from_its_configured_address() -> Result<()> {
    let mut host = host()?;
    let baseline = host.baseline()?;
    let vif = Device::card(3, 0);
    let nodes = vif_of("vif-nat", &[("ip", "10.7.0.5/16")]);
    plug(&mut host, "vif-nat", &vif, &nodes, json!({ "ip": "10.8.0.9" }))?.done()?;
    assert_eq!(host.namespace().addresses("vif3.0")?, ["10.7.0.132/32"]);
    assert_eq!(host.namespace().routes("vif3.0")?, ["10.7.0.5 src 10.7.0.132"]);
    sends_its_own_alone(&host, &vif, "10.7.0.132", "10.7.0.5", "10.8.0.9")?;
    remove(&host, "vif-nat", &vif)?;
    host.toolstack().forget(&vif)?;
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn nat_tap_has_no_address_and_the_route_stays_on_the_vif() -> Result<()> {
    let mut host = host()?;
    let vif = Device::card(3, 0);
    plug(&mut host, "vif-nat", &vif, &vif_of("vif-nat", &[]), json!({}))?.done()?;
    host.namespace().tap("vif3.0-emu")?;
    for action in ["add", "remove"] {
        let call = host.call_of("vif-nat", &vif, action, json!({ "emulated": true }))?;
        call.answer()?.done()?;
        let network = host.namespace();
        assert_eq!(network.addresses("vif3.0-emu")?, [""; 0], "{action}");
        assert_eq!(network.routes("vif3.0-emu")?, [""; 0], "{action}");
        assert_eq!(network.routes("vif3.0")?, ["10.0.3.1 src 10.0.3.128"], "{action}");
    }
    remove(&host, "vif-nat", &vif)
}

#[test]
fn nat_invalid_address_is_refused() -> Result<()> {
    let mut host = host()?;
    let vif = Device::card(3, 0);
    for (node, value, word) in [
        ("ip", "10.0.0.200", "no room for the router"),
        ("ip", "10.0.0.1 10.0.0.2", "not one IPv4 address"),
        ("ip", "192.168.0.1", "not granted"),
        ("handle", "200", "no room for the router"),
        ("handle", "x", "handle"),
    ] {
        let nodes = vif_of("vif-nat", &[(node, value)]);
        plug(&mut host, "vif-nat", &vif, &nodes, json!({}))?.says("failed", &["vif-nat", word])?;
        assert_eq!(host.namespace().addresses("vif3.0")?, [""; 0], "{node} {value}");
        host.unplug(&vif)?.done()?;
    }
    Ok(())
}

/// A DHCP server whose restart is noted.
struct Server {
    folder: std::path::PathBuf,
}

impl Server {
    const CONFIGURATION: &str = "# mine\nhost dom30 { }\n";
    const LINKS: &str = "INTERFACESv4=\"eth0\"\n";

    /// Its files, and the part of the configuration that grants them.
    fn new(host: &TestHost) -> Result<(Self, String)> {
        let folder = host.directory().join("dhcp");
        fs::create_dir(&folder)?;
        fs::write(folder.join("dhcpd.conf"), Self::CONFIGURATION)?;
        fs::write(folder.join("links"), Self::LINKS)?;
        let text = "#!/bin/sh\necho \"$1\" >> \"$(dirname \"$0\")/restarts\"\nexit 1\n";
        install(&folder.join("init"), text)?;
        let at = |name: &str| folder.join(name);
        let grant = format!(
            "dhcp = {{ configuration = {:?}, links = {:?}, restart = {:?} }}\n",
            at("dhcpd.conf"),
            at("links"),
            at("init")
        );
        Ok((Self { folder }, grant))
    }

    fn read(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join(name))?)
    }
}

#[test]
fn nat_dhcp_entry_is_written_when_requested_and_granted() -> Result<()> {
    let mut host = host()?;
    let (server, grant) = Server::new(&host)?;
    let config = host.config_of_dom0()?.with(handlers::ROUTED);
    host.start_daemon(config.clone().with(&grant))?;
    let entry = |name: &str, address: &str, router: &str| {
        format!(
            "{}host {name} {{ hardware ethernet 00:16:3e:01:02:03; fixed-address {address}; option routers {router}; \
             option host-name \"{name}\"; }}\n",
            Server::CONFIGURATION
        )
    };
    let vif = Device::card(3, 0);
    let nodes = vif_of("vif-nat", &[]);
    for told in [json!({}), json!({ "dhcp": "no" })] {
        plug(&mut host, "vif-nat", &vif, &nodes, told)?.done()?;
        assert_eq!(server.read("dhcpd.conf")?, Server::CONFIGURATION);
        host.unplug(&vif)?.done()?;
    }
    let second = Device::card(3, 1);
    for (vif, handle, name, address, router) in [
        (vif, "0", "dom3", "10.0.3.1", "10.0.3.128"),
        (second, "1", "dom3-2", "10.0.3.2", "10.0.3.129"),
    ] {
        let nodes = vif_of("vif-nat", &[("handle", handle)]);
        plug(&mut host, "vif-nat", &vif, &nodes, json!({ "dhcp": "yes" }))?.done()?;
        assert_eq!(server.read("dhcpd.conf")?, entry(name, address, router));
        assert_eq!(server.read("links")?, format!("INTERFACESv4=\"eth0 {}\"\n", vif.link()));
        assert_eq!(server.read("restarts")?, "restart\n");
        // The journal tells another daemon, which is granted nothing, what to strike out.
        host.daemon_mut()?.kill()?;
        host.start_daemon(config.clone())?;
        host.unplug(&vif)?.done()?;
        assert_eq!(server.read("dhcpd.conf")?, Server::CONFIGURATION);
        assert_eq!(server.read("links")?, Server::LINKS);
        assert_eq!(server.read("restarts")?, "restart\nrestart\n");
        fs::remove_file(server.folder.join("restarts"))?;
        host.start_daemon(config.clone().with(&grant))?;
    }
    Ok(())
}

#[test]
fn nat_dhcp_entries_change_under_the_scripts_lock() -> Result<()> {
    let mut host = host()?;
    let (server, grant) = Server::new(&host)?;
    let config = host.config_of_dom0()?.with(handlers::ROUTED);
    host.start_daemon(config.with(&grant))?;
    let vif = Device::card(3, 0);
    host.attach(&vif, &vif_of("vif-nat", &[]))?;
    host.expect_state(&vif, "2")?;
    let lock = Locker::claim(&host, "vif-nat-dhcp")?;
    let call = host.call_of("vif-nat", &vif, "add", json!({ "parameters": { "dhcp": "yes" } }))?;
    thread::sleep(Duration::from_millis(500));
    assert_eq!(server.read("dhcpd.conf")?, Server::CONFIGURATION, "it did not wait");
    lock.release()?;
    call.answer()?.done()?;
    ensure!(server.read("dhcpd.conf")?.contains("host dom3 "));
    host.unplug(&vif)?.done()?;
    assert_eq!(server.read("dhcpd.conf")?, Server::CONFIGURATION);
    Ok(())
}

#[test]
fn nat_dhcp_entry_without_grant_or_file_is_refused() -> Result<()> {
    let mut host = host()?;
    let vif = Device::card(3, 0);
    let nodes = vif_of("vif-nat", &[]);
    let answer = plug(&mut host, "vif-nat", &vif, &nodes, json!({ "dhcp": "yes" }))?;
    answer.says("failed", &["vif-nat: dhcp", "not granted"])?;
    host.unplug(&vif)?.done()?;

    let (server, grant) = Server::new(&host)?;
    fs::remove_file(server.folder.join("links"))?;
    let config = host.config_of_dom0()?;
    host.start_daemon(config.with(handlers::ROUTED).with(&grant))?;
    let answer = plug(&mut host, "vif-nat", &vif, &nodes, json!({ "dhcp": "yes" }))?;
    answer.says("failed", &["vif-nat: dhcp", "links"])?;
    // An entry written before is removed.
    assert_eq!(server.read("dhcpd.conf")?, Server::CONFIGURATION);
    host.unplug(&vif)?.done()
}
