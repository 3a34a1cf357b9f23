//! Malicious values in every node that is read, and pointers to another guest's device.

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    cases::Cases,
    harness::{Baseline, Device, Disk, Nodes, TestHost, Vif, attached_below},
};

/// Returns malicious values of a node.
fn bad_values() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("empty", vec![]),
        ("above", text("../../../../etc/shadow")),
        ("absolute", text("/etc/shadow")),
        ("another's", text("/local/domain/4/device/vbd/51712")),
        ("NUL", text("a\0b")),
        ("newline", text("a\nb")),
        ("shell", text(";reboot #")),
        ("substitution", text("$(touch /tmp/xenplug-forged)`reboot`")),
        ("format", text("%s%n%99999999s")),
        ("escape", text("\u{1b}[2J\u{7}")),
        ("turned around", text("gnp.\u{202e}sys")),
        ("no text", vec![0xff, 0xfe, 0x80]),
        ("negative", text("-1")),
        ("too many bits", text("18446744073709551616")),
        ("option", text("--help")),
        // A node of dom0 may be as long as a message: 4096 bytes with the path.
        ("long", vec![b'x'; 3900]),
    ]
}

/// Nodes of a disk's and a vif's backend that the daemon, a plugin or the kernel reads.
const DISK: &[&str] = &[
    "params",
    "mode",
    "script",
    "type",
    "device-type",
    "discard-enable",
    "physical-device",
    "node",
    "frontend",
    "frontend-id",
    "hotplug-error",
    "dev",
];
const VIF: &[&str] = &[
    "script",
    "bridge",
    "mac",
    "ip",
    "vifname",
    "mtu",
    "gatewaydev",
    "type",
    "handle",
    "frontend",
    "frontend-id",
    "hotplug-error",
    "rate",
    "accel",
];
/// Nodes of the device's state. With an invalid value the device may wait for ever.
const LIFE: &[&str] = &["state", "online", "hotplug-status"];

/// Host with an attacker and a victim guest, which must stay unaffected.
struct Fixture {
    host: TestHost,
    victim: [Device; 2],
    before: Baseline,
}

impl Fixture {
    fn new() -> Result<Self> {
        let mut host = TestHost::with_daemon()?;
        let victim = [host.attach_disk(4, 0)?, host.attach_vif(4, 0)?];
        for device in &victim {
            host.expect_connected(device)?;
        }
        host.toolstack().build(3)?;
        let before = host.baseline()?;
        Ok(Self { host, victim, before })
    }

    /// Attaches a disk or a vif of the attacker.
    fn device(&self, vif: bool, index: u32) -> Result<(Device, Nodes)> {
        if vif {
            return Ok((Device::vif(3, index), Vif::on("xenbr0")));
        }
        let image = self.host.image(&format!("3-{index}.img"), 1)?;
        Ok((Device::disk(3, index), Disk::on(&image)))
    }

    /// Checks that the device is connected or has a valid error.
    fn settled(&self, device: &Device) -> Result<()> {
        let path = format!("{}/hotplug-status", device.backend());
        let is_final = |status: Option<&str>| matches!(status, Some("connected" | "error" | "busy"));
        let ended = self
            .host
            .connect()?
            .wait(&path, std::time::Duration::from_secs(15), is_final)?;
        ensure!(ended.is_ok(), "it came to {ended:?}\n{}", self.host.daemon_log());
        if self.host.node(device, "hotplug-status")?.as_deref() == Some("connected") {
            return Ok(());
        }
        let error = self.host.node(device, "hotplug-error")?.context("no hotplug-error")?;
        let named = ["phy: ", "vif-bridge: ", "xenplugd: "]
            .iter()
            .any(|who| error.starts_with(who));
        ensure!(named && error.len() <= 1000, "{error:?}");
        ensure!(!error.chars().any(char::is_control), "{error:?}");
        Ok(())
    }

    /// Checks that the attacker has only granted resources, and the victim's are unchanged.
    fn check_confinement(&self) -> Result<()> {
        let images = self.host.images();
        for one in attached_below(std::path::Path::new("/"))? {
            let ours =
                one.backing.contains("/xenplug-") && one.backing.starts_with(&*self.host.directory().to_string_lossy());
            ensure!(!ours || one.backing.starts_with(&*images.to_string_lossy()), "{one:?}");
        }
        for device in &self.victim {
            ensure!(
                self.host.node(device, "state")?.as_deref() == Some("4"),
                "the victim's {device:?}"
            );
            ensure!(
                self.host.node(device, "hotplug-status")?.as_deref() == Some("connected"),
                "the victim's {device:?}"
            );
        }
        Ok(())
    }

    /// Removes the attacker's devices, and checks that nothing is left.
    fn clean(&mut self, devices: &[Device]) -> Result<()> {
        for device in devices {
            self.host.toolstack().forget(device)?;
        }
        self.before.assert_same(&self.host)
    }

    fn end(mut self) -> Result<()> {
        self.host.toolstack().bury(3)?;
        let victim = self.victim;
        self.host.end_guest(4, &victim)
    }
}

#[test]
fn malicious_node_values_touch_nothing_ungranted() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let mut cases = Cases::default();
    let keys = DISK
        .iter()
        .map(|key| (false, *key))
        .chain(VIF.iter().map(|key| (true, *key)));
    for (vif, key) in keys {
        // All values of a key at once, each in a device of its own.
        let mut devices = Vec::new();
        for (index, (what, value)) in bad_values().into_iter().enumerate() {
            let (device, nodes) = fixture.device(vif, index as u32)?;
            fixture.host.toolstack().attach(&device, &nodes.with(key, value))?;
            devices.push((what, device));
        }
        for (what, device) in &devices {
            cases.case(&format!("{} {key}: {what}", device.kind), fixture.settled(device));
        }
        fixture.check_confinement().context(key)?;
        let devices: Vec<Device> = devices.into_iter().map(|(_, device)| device).collect();
        fixture.clean(&devices).context(key)?;
    }
    fixture.end()?;
    cases.end()
}

#[test]
fn device_in_an_invalid_state_waits_and_leaks_nothing() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let mut cases = Cases::default();
    for (vif, key) in [false, true]
        .into_iter()
        .flat_map(|vif| LIFE.iter().map(move |key| (vif, *key)))
    {
        let mut devices = Vec::new();
        for (index, (_, value)) in bad_values().into_iter().enumerate() {
            let (device, nodes) = fixture.device(vif, index as u32)?;
            fixture.host.toolstack().attach(&device, &nodes)?;
            // While the daemon connects the device.
            fixture
                .host
                .toolstack()
                .store()
                .write(&format!("{}/{key}", device.backend()), value)?;
            devices.push(device);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        fixture.check_confinement().context(key)?;
        cases.case(&format!("{key} of {}", devices[0].kind), fixture.clean(&devices));
    }
    fixture.end()?;
    cases.end()
}

#[test]
fn forged_device_pointers_do_not_affect_other_guests() -> Result<()> {
    let mut fixture = Fixture::new()?;
    fixture.host.namespace().ip("link set xenbr0 mtu 1400")?;
    let victims = fixture.victim;
    let devices = [fixture.device(false, 0)?, fixture.device(true, 0)?];
    let mut store = fixture.host.connect()?;
    let read = |host: &TestHost, device: &Device| -> Result<_> {
        let mut store = host.connect()?;
        Ok((store.tree(&device.backend())?, store.tree(&device.frontend())?))
    };
    let before = [read(&fixture.host, &victims[0])?, read(&fixture.host, &victims[1])?];
    for ((device, nodes), victim) in devices.iter().zip(&victims) {
        let nodes = nodes
            .clone()
            .with("frontend", victim.frontend())
            .with("frontend-id", "4");
        fixture.host.toolstack().attach(device, &nodes)?;
        // The guest itself may write this in its own directory.
        store.write(&format!("{}/backend", device.frontend()), victim.backend())?;
        store.write(&format!("{}/backend-id", device.frontend()), "7")?;
        fixture.host.expect_status(device, "connected")?;
        // After the device is connected, values that could mislead the release.
        for name in [
            "params",
            "node",
            "physical-device",
            "physical-device-path",
            "bridge",
            "vifname",
        ] {
            if let Some(value) = fixture.host.node(victim, name)? {
                store.write(&format!("{}/{name}", device.backend()), value)?;
            }
        }
        store.write(&format!("{}/vifname", device.backend()), victim.link())?;
    }
    // The daemon finds the frontend by the device's key and not by the pointer.
    let own = store.find(&format!("{}/mtu", devices[1].0.frontend()))?;
    assert_eq!(own.as_deref(), Some("1400"));
    for (device, _) in &devices {
        fixture.host.detach(device)?;
    }
    for (victim, before) in victims.iter().zip(before) {
        ensure!(
            read(&fixture.host, victim)? == before,
            "the victim's {victim:?} was written"
        );
    }
    fixture.host.namespace().ip("link set xenbr0 mtu 1500")?;
    fixture.check_confinement()?;
    let left: Vec<Device> = devices.map(|(device, _)| device).into();
    fixture.clean(&left)?;
    fixture.end()
}
