//! Bad values in every node that is read, and pointers to another guest's device.

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    harness::{Baseline, Device, Disk, Nodes, TestHost, Vif, attached_below},
    trial::Trial,
};

/// What a node may hold that nobody means well with.
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
        // A node of dom0's may have as much as a message: 4096 bytes with the path.
        ("long", vec![b'x'; 3900]),
    ]
}

/// The nodes of a disk's and a card's backend that somebody reads.
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
const CARD: &[&str] = &[
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
/// Those that say where it is in its life: with a bad value it may wait, for ever.
const LIFE: &[&str] = &["state", "online", "hotplug-status"];

/// A machine with a guest that is to notice nothing.
struct Stage {
    machine: TestHost,
    victim: [Device; 2],
    before: Baseline,
}

impl Stage {
    fn new() -> Result<Self> {
        let mut machine = TestHost::with_daemon()?;
        let victim = [machine.attach_disk(4, 0)?, machine.attach_card(4, 0)?];
        for device in &victim {
            machine.expect_connected(device)?;
        }
        machine.toolstack().build(3)?;
        let before = machine.baseline()?;
        Ok(Self {
            machine,
            victim,
            before,
        })
    }

    /// A disk or a card of the forger's.
    fn device(&self, card: bool, index: u32) -> Result<(Device, Nodes)> {
        if card {
            return Ok((Device::card(3, index), Vif::on("xenbr0")));
        }
        let image = self.machine.image(&format!("3-{index}.img"), 1)?;
        Ok((Device::disk(3, index), Disk::on(&image)))
    }

    /// The device has come to an end that is told as it has to be.
    fn settled(&self, device: &Device) -> Result<()> {
        let path = format!("{}/hotplug-status", device.backend());
        let told = |status: Option<&str>| matches!(status, Some("connected" | "error" | "busy"));
        let ended = self
            .machine
            .connect()?
            .wait(&path, std::time::Duration::from_secs(15), told)?;
        ensure!(ended.is_ok(), "it came to {ended:?}\n{}", self.machine.daemon_log());
        if self.machine.node(device, "hotplug-status")?.as_deref() == Some("connected") {
            return Ok(());
        }
        let error = self
            .machine
            .node(device, "hotplug-error")?
            .context("no hotplug-error")?;
        let named = ["phy: ", "vif-bridge: ", "xenplugd: "]
            .iter()
            .any(|who| error.starts_with(who));
        ensure!(named && error.len() <= 1000, "{error:?}");
        ensure!(!error.chars().any(char::is_control), "{error:?}");
        Ok(())
    }

    /// All that the forger has is below what is granted, and the victim's is as it was.
    fn kept_within(&self) -> Result<()> {
        let images = self.machine.images();
        for one in attached_below(std::path::Path::new("/"))? {
            let ours = one.backing.contains("/xenplug-")
                && one.backing.starts_with(&*self.machine.directory().to_string_lossy());
            ensure!(!ours || one.backing.starts_with(&*images.to_string_lossy()), "{one:?}");
        }
        for device in &self.victim {
            ensure!(
                self.machine.node(device, "state")?.as_deref() == Some("4"),
                "the victim's {device:?}"
            );
            ensure!(
                self.machine.node(device, "hotplug-status")?.as_deref() == Some("connected"),
                "the victim's {device:?}"
            );
        }
        Ok(())
    }

    /// Takes the forger's devices away, after which all is as before.
    fn clean(&mut self, devices: &[Device]) -> Result<()> {
        for device in devices {
            self.machine.toolstack().forget(device)?;
        }
        self.before.assert_same(&self.machine)
    }

    fn end(mut self) -> Result<()> {
        self.machine.toolstack().bury(3)?;
        let victim = self.victim;
        self.machine.end_guest(4, &victim)
    }
}

#[test]
fn malicious_node_values_touch_nothing_ungranted() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut trial = Trial::default();
    let keys = DISK
        .iter()
        .map(|key| (false, *key))
        .chain(CARD.iter().map(|key| (true, *key)));
    for (card, key) in keys {
        // All values of a key at once, each for a device of its own.
        let mut devices = Vec::new();
        for (index, (what, value)) in bad_values().into_iter().enumerate() {
            let (device, nodes) = stage.device(card, index as u32)?;
            stage.machine.toolstack().attach(&device, &nodes.with(key, value))?;
            devices.push((what, device));
        }
        for (what, device) in &devices {
            trial.case(&format!("{} {key}: {what}", device.kind), stage.settled(device));
        }
        stage.kept_within().context(key)?;
        let devices: Vec<Device> = devices.into_iter().map(|(_, device)| device).collect();
        stage.clean(&devices).context(key)?;
    }
    stage.end()?;
    trial.end()
}

#[test]
fn device_in_an_invalid_state_waits_and_leaks_nothing() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut trial = Trial::default();
    for (card, key) in [false, true]
        .into_iter()
        .flat_map(|card| LIFE.iter().map(move |key| (card, *key)))
    {
        let mut devices = Vec::new();
        for (index, (_, value)) in bad_values().into_iter().enumerate() {
            let (device, nodes) = stage.device(card, index as u32)?;
            stage.machine.toolstack().attach(&device, &nodes)?;
            // While the device is on its way.
            stage
                .machine
                .toolstack()
                .store()
                .write(&format!("{}/{key}", device.backend()), value)?;
            devices.push(device);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        stage.kept_within().context(key)?;
        trial.case(&format!("{key} of {}", devices[0].kind), stage.clean(&devices));
    }
    stage.end()?;
    trial.end()
}

#[test]
fn forged_device_pointers_do_not_affect_other_guests() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.machine.namespace().ip("link set xenbr0 mtu 1400")?;
    let theirs = stage.victim;
    let devices = [stage.device(false, 0)?, stage.device(true, 0)?];
    let mut store = stage.machine.connect()?;
    let read = |machine: &TestHost, device: &Device| -> Result<_> {
        let mut store = machine.connect()?;
        Ok((store.tree(&device.backend())?, store.tree(&device.frontend())?))
    };
    let before = [read(&stage.machine, &theirs[0])?, read(&stage.machine, &theirs[1])?];
    for ((device, nodes), victim) in devices.iter().zip(&theirs) {
        let nodes = nodes
            .clone()
            .with("frontend", victim.frontend())
            .with("frontend-id", "4");
        stage.machine.toolstack().attach(device, &nodes)?;
        // As the guest itself may, in its own directory.
        store.write(&format!("{}/backend", device.frontend()), victim.backend())?;
        store.write(&format!("{}/backend-id", device.frontend()), "7")?;
        stage.machine.expect_status(device, "connected")?;
        // Now that it is connected, all that could lead its end elsewhere.
        for name in [
            "params",
            "node",
            "physical-device",
            "physical-device-path",
            "bridge",
            "vifname",
        ] {
            if let Some(value) = stage.machine.node(victim, name)? {
                store.write(&format!("{}/{name}", device.backend()), value)?;
            }
        }
        store.write(&format!("{}/vifname", device.backend()), victim.link())?;
    }
    // What is asked of the frontend goes to the device's own, by its place and not by the pointer.
    let own = store.find(&format!("{}/mtu", devices[1].0.frontend()))?;
    assert_eq!(own.as_deref(), Some("1400"));
    for (device, _) in &devices {
        stage.machine.detach(device)?;
    }
    for (victim, before) in theirs.iter().zip(before) {
        ensure!(
            read(&stage.machine, victim)? == before,
            "the victim's {victim:?} was written"
        );
    }
    stage.machine.namespace().ip("link set xenbr0 mtu 1500")?;
    stage.kept_within()?;
    let left: Vec<Device> = devices.map(|(device, _)| device).into();
    stage.clean(&left)?;
    stage.end()
}
