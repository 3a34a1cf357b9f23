//! `vif-openvswitch`: vifs on a real Open vSwitch.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xenplug_tests::harness::{Answer, Device, Nodes, Switch, TestHost, Vif, handlers};

/// dom0 with a switch that has the bridge `ovsbr0`, and another bridge that is not granted.
struct Switched {
    switch: Switch,
    host: TestHost,
}

impl Switched {
    fn new() -> Result<Self> {
        let mut host = TestHost::new()?;
        let switch = Switch::start(host.namespace())?;
        for bridge in ["ovsbr0", "other0"] {
            switch.bridge(bridge)?;
        }
        let config = host.config_of_dom0()?;
        host.start_daemon(config.with(&handlers::openvswitch(switch.vsctl())))?;
        switch.called()?;
        Ok(Self { switch, host })
    }

    fn attach(&mut self, vif: &Device, nodes: &Nodes) -> Result<Answer> {
        self.host.attach(vif, nodes)?;
        self.host.expect_state(vif, "2")?;
        let call = self.host.call_of("vif-openvswitch", vif, "add", json!({}))?;
        call.answer()
    }

    fn get(&self, table: &str, link: &str, column: &str) -> Result<String> {
        self.switch.tell(&["get", table, link, column])
    }

    fn ports(&self) -> Result<Vec<String>> {
        let output = self.switch.tell(&["list-ports", "ovsbr0"])?;
        Ok(output.lines().map(str::to_owned).collect())
    }
}

fn on(bridge: &str) -> Nodes {
    Vif::on(bridge).with("script", "/etc/xen/scripts/vif-openvswitch")
}

#[test]
fn ovs_vif_is_a_port_with_its_vlans_and_guest_identity() -> Result<()> {
    let mut switched = Switched::new()?;
    let baseline = switched.host.baseline()?;
    let vif = Device::vif(3, 0);
    for (bridge, tag, trunks, columns) in [
        ("ovsbr0", "[]", "[]", "tag=[] trunks=[]"),
        ("ovsbr0.5", "5", "[]", "tag=5 trunks=[]"),
        ("ovsbr0:6:7", "[]", "[6, 7]", "tag=[] trunks=6,7"),
        ("ovsbr0.5:6:7", "5", "[6, 7]", "tag=5 trunks=6,7"),
    ] {
        switched.attach(&vif, &on(bridge))?.done()?;
        switched.host.expect_connected(&vif)?;
        let uuid = switched.host.connect()?.find("/local/domain/3/vm")?.context("no vm")?;
        let uuid = uuid.trim_start_matches("/vm/").to_owned();
        assert_eq!(switched.ports()?, ["vif3.0"]);
        assert_eq!(switched.get("port", "vif3.0", "tag")?, tag, "{bridge}");
        assert_eq!(switched.get("port", "vif3.0", "trunks")?, trunks, "{bridge}");
        assert_eq!(
            switched.get("interface", "vif3.0", "external_ids")?,
            format!("{{attached-mac=\"00:16:3e:01:02:03\", xen-vm-name=guest-3, xen-vm-uuid=\"{uuid}\"}}")
        );
        let link = switched.host.namespace().link("vif3.0")?.context("no link")?;
        ensure!(
            link["address"] == "fe:ff:ff:ff:ff:ff" && link["flags"].to_string().contains("\"UP\""),
            "{link}"
        );
        switched.host.unplug(&vif)?.done()?;
        assert_eq!(switched.ports()?, [""; 0]);
        // Argument by argument, as the operator grants them.
        assert_eq!(
            switched.switch.called()?,
            [
                format!(
                    "--timeout=30 -- --if-exists del-port vif3.0 -- add-port ovsbr0 vif3.0 {columns} -- set interface \
                     vif3.0 external-ids:\"xen-vm-name\"=\"guest-3\" external-ids:\"xen-vm-uuid\"=\"{uuid}\" \
                     external-ids:\"attached-mac\"=\"00:16:3e:01:02:03\""
                ),
                "--timeout=30 -- --if-exists del-port vif3.0".to_owned()
            ]
        );
    }
    switched.host.toolstack().bury(3)?;
    baseline.assert_same(&switched.host)
}

#[test]
fn ovs_guest_name_is_passed_as_plain_text() -> Result<()> {
    let mut switched = Switched::new()?;
    let vif = Device::vif(3, 0);
    switched.host.toolstack().build(3)?;
    // The script would split the name at the spaces, and pass the parts to ovs-vsctl as arguments of their own.
    let name = "a \"b\" -- del-br ovsbr0 / \\ $(id)";
    switched.host.toolstack().store().write("/local/domain/3/name", name)?;
    switched.attach(&vif, &on("ovsbr0").with("vifname", "web"))?.done()?;
    assert_eq!(switched.ports()?, ["web"]);
    let known = switched.get("interface", "web", "external_ids:xen-vm-name")?;
    assert_eq!(known, format!("{name:?}"));
    switched
        .host
        .call_of("vif-openvswitch", &vif, "remove", json!({}))?
        .answer()?
        .done()?;
    assert_eq!(switched.ports()?, [""; 0]);
    ensure!(
        switched.host.namespace().link("vif3.0")?.is_some(),
        "it has its name back"
    );
    Ok(())
}

#[test]
fn ovs_vif_sends_only_from_its_addresses() -> Result<()> {
    let mut switched = Switched::new()?;
    let vif = Device::vif(3, 0);
    // Sockets of the userspace switch receive packets before these rules; its kernel module receives them after.
    let rules = |host: &TestHost| -> Result<String> {
        let mut nft = host.namespace().command("nft");
        Ok(String::from_utf8(nft.args(["list", "ruleset"]).output()?.stdout)?)
    };
    switched.attach(&vif, &on("ovsbr0").with("ip", "10.0.0.2"))?.done()?;
    let listed = rules(&switched.host)?;
    // 10.0.0.2, as older versions of nft show it.
    let address = ["0xa000002 accept", "10.0.0.2 accept"];
    ensure!(
        listed.contains("device \"vif3.0\"") && address.iter().any(|text| listed.contains(text)),
        "{listed}"
    );
    switched.host.unplug(&vif)?.done()?;
    assert_eq!(rules(&switched.host)?, "");
    Ok(())
}

#[test]
fn ovs_port_is_removed_after_a_crash_and_a_changed_grant() -> Result<()> {
    let mut switched = Switched::new()?;
    let vif = Device::vif(3, 0);
    switched.attach(&vif, &on("ovsbr0"))?.done()?;
    switched.host.namespace().tap("vif3.0-emu")?;
    let tap = |host: &TestHost, action: &str| {
        let call = host.call_of("vif-openvswitch", &vif, action, json!({ "emulated": true }))?;
        call.answer()?.done()
    };
    tap(&switched.host, "add")?;
    assert_eq!(switched.ports()?, ["vif3.0", "vif3.0-emu"]);
    switched.host.daemon_mut()?.kill()?;
    let config = switched.host.config_of_dom0()?;
    switched.host.start_daemon(config)?;
    assert_eq!(switched.ports()?, ["vif3.0", "vif3.0-emu"]);
    tap(&switched.host, "remove")?;
    assert_eq!(switched.ports()?, ["vif3.0"]);
    switched.host.unplug(&vif)?.done()?;
    assert_eq!(switched.ports()?, [""; 0]);
    Ok(())
}

#[test]
fn ovs_refused_port_leaves_nothing() -> Result<()> {
    let mut switched = Switched::new()?;
    let vif = Device::vif(3, 0);
    for (nodes, words) in [
        (on("ovsbr0").without("bridge"), ["bridge", "is missing"]),
        (on("ovsbr0.x"), ["bridge", "is not of the form"]),
        (on("ovsbr0.5000"), ["bridge", "is not of the form"]),
        (on("other0"), ["ovs-vsctl", "is not granted"]),
        (on("ovsbr7"), ["ovs-vsctl", "no bridge named ovsbr7"]),
        (on("ovsbr0").with("ip", "nowhere"), ["ip", "neither an address"]),
    ] {
        let answer = switched.attach(&vif, &nodes)?;
        answer.says("failed", &["vif-openvswitch"])?;
        answer.says("failed", &words)?;
        assert_eq!(switched.ports()?, [""; 0]);
        switched.host.unplug(&vif)?.done()?;
    }
    Ok(())
}
